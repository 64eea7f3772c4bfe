"""Opens the window and builds what belongs in it: the worker, the picker, a game, or data to look at. Our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

from app.desktop.browse import Browse
from app.desktop.game import Game
from app.desktop.gamepad import Gamepads
from app.desktop.keys import Keyboard
from app.desktop.picker import Picker
from app.desktop.play import Play
from app.desktop.player import Player, Scene
from app.desktop.window import Window
from app.desktop.worker import Worker
from app.session.look import called

if TYPE_CHECKING:
    from app.session.library import Entry
    from app.session.session import Session
    from app.session.view import NumSteps

Load = Callable[[Callable[[str], None]], "Session"]
Prepare = Callable[["Session"], None]


class Desk:
    """What all scenes of one window share."""

    def __init__(self, window: Window, worker: Worker, *, seed: int | None = None, steps: NumSteps = "auto",
                 device: str = "auto") -> None:
        self._window, self._worker = window, worker
        self._seed, self._steps, self._device = seed, steps, device
        self._keyboard, self._pads = Keyboard(), Gamepads()

    def picker(self) -> Scene:
        """The worlds to choose from."""
        return Picker(self._worker, installed_worlds, self.play, self._keyboard, self._pads,
                      self._window.toggle_full_screen)

    def play(self, checkpoint: str, prepare: Prepare | None = None, *, must_begin: bool = False) -> Scene:
        """One world: a name, a checkpoint folder or a run."""
        load = loader(checkpoint, self._seed, self._steps, self._device, self._keyboard.plays, prepare)
        game = Game(self._worker, called(checkpoint), load)
        return Play(game, self._keyboard, self._pads, self.picker, self._window.toggle_full_screen,
                    must_begin=must_begin)


def play(checkpoint: str | None = None, *, seed: int | None = None, steps: NumSteps = "auto", device: str = "auto",
         prepare: Prepare | None = None) -> None:
    """Opens the window and stays until it is closed. `prepare` is given the session before it begins, on the worker.

    Raises ValueError where the named checkpoint cannot be played.
    """
    window, worker = Window(), Worker()
    try:
        desk = Desk(window, worker, seed=seed, steps=steps, device=device)
        scene = desk.picker() if checkpoint is None else desk.play(checkpoint, prepare, must_begin=True)
    except BaseException:
        window.close()
        worker.close()
        raise
    Player(window, worker, scene).run()


def browse(source: Path, *, checkpoint: str | None = None) -> None:
    """Opens the window on recorded play."""
    from app.desktop.reels import open_shelf

    keyboard = Keyboard()
    window, worker = Window(f"Diamond: {called(source)}"), Worker()
    scene = Browse(worker, lambda: open_shelf(source, checkpoint), keyboard, window.toggle_full_screen)
    Player(window, worker, scene).run()


def installed_worlds() -> Sequence[Entry]:
    """All that the picker offers."""
    from app.session.library import entries

    return entries()


def loader(checkpoint: str, seed: int | None, steps: NumSteps, device: str, keymap: dict[str, str],
           prepare: Prepare | None = None) -> Load:
    """Makes a session of a checkpoint; says what it is at."""
    def load(say: Callable[[str], None]) -> Session:
        """The session, after some seconds; `say` hears what it is at."""
        say("Starting the engine")
        from app.session.controls import Controls
        from app.session.session import Session
        from diamond_core.config import RuntimeConfig
        from diamond_core.training import library
        from diamond_core.world.accelerate import accelerate

        say("Reading the weights")
        agent = library.load(checkpoint, device)
        world = agent.world(runtime=RuntimeConfig(device=device))
        say("Beginning a game to dream of")
        assert agent.card is not None, "checkpoints have a card"
        controls = Controls(agent.card.action_names, keymap)
        session = Session(agent, world, seed=SystemRandom().randrange(10_000) if seed is None else seed,
                          controls=controls)
        session.set_knobs(steps=steps)
        session.say("arrows move, space fires; F1 shows all keys")
        if prepare is not None:
            prepare(session)
        before = world.path

        def told(words: str) -> None:
            if world.path != before:
                say(f"faster from here: {words}")

        session.search = accelerate(world, agent.config.frame_shape, told)
        return session
    return load
