"""The tab in which worlds are trained: an order, the runs, and how the chosen one is doing. For the owner only."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.session.library import beginnings
from app.web.charts import Curve, chart
from app.web.jobs import JobError, Order, Status
from app.web.progress import Progress, now_of, progress_of, read_metrics
from diamond_core.envs import list_games
from diamond_core.evaluation.returns import reference
from diamond_core.presets import PRESETS
from diamond_core.training.progress import clock
from diamond_core.training.run import Run

if TYPE_CHECKING:
    from app.web.house import House

PRESET_WORDS = [("tiny: a first look, a minute or more", "tiny"),
                ("playground: worth playing, an hour or more", "playground"),
                ("paper: the paper's numbers, days", "paper")]
NEW_PLAY, OWN_PLAY = "collect new play", "my recorded play"
NEW_WEIGHTS = "new weights"
TEACHER = "Pong"
"""The world that a game without one of its own goes on from, where it is installed."""
EVERY = 2.0
"""Seconds between two looks at a run."""
OPEN_JS = "(name) => { window.dispatchEvent(new CustomEvent('dream-open', { detail: { game: name } })); return name; }"


def build(house: House) -> tuple[gr.Timer, list[Any]]:
    """Lays the tab out; the timer shall run while the tab is seen, and what `refresh` renews comes with it, first the
    choice of a run."""
    timer = gr.Timer(EVERY, active=False)
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=0, min_width=340, elem_classes="form"):
            gr.HTML("<h2>Train a world</h2>", padding=False)
            game = gr.Dropdown(["toy", *list_games()], value="Pong", label="Game", allow_custom_value=True,
                               info="an Atari game, toy, or any Gymnasium id as gym:CartPole-v1")
            preset = gr.Radio(PRESET_WORDS, value="playground", label="Preset")
            source = gr.Dropdown([NEW_PLAY], value=NEW_PLAY, label="Learn from")
            begin_with = beginning("Pong", "playground")
            minutes = gr.Number(label="Stop after minutes", value=0, info="0: when it is done")
            with gr.Accordion("More numbers", open=False):
                name = gr.Textbox(label="Name of the run", max_lines=1, placeholder="Pong-1")
                seed = gr.Number(label="Seed", value=0, precision=0)
                epochs = gr.Number(label="Epochs", precision=0, value=0, info="0: the preset's")
                batch = gr.Number(label="Batch size of the world", precision=0, value=0, info="0: the preset's")
                rate = gr.Number(label="Learning rate of the world", value=0, info="0: the preset's")
            start = gr.Button("Start training", variant="primary", elem_id="start-training")
        with gr.Column(elem_classes="runs"):
            runs = gr.Radio([], label="Runs", elem_id="runs", show_label=False, visible=False)
            status = gr.HTML(NOTHING, padding=False, elem_id="run-status")
            with gr.Row(elem_classes="actions"):
                stop = gr.Button("Stop", visible=False, elem_id="stop-training")
                resume = gr.Button("Go on", visible=False, elem_id="resume-training")
                play = gr.Button("Play its dream", visible=False, variant="primary", elem_id="play-run")
                delete = gr.Button("Delete", visible=False, elem_classes="quiet")
            curves = gr.HTML("", padding=False, elem_id="run-curves")
            moment = gr.Textbox(visible=False)
    seen = [runs, status, stop, resume, play, delete, curves, moment]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def look(run: str | None) -> list[Any]:
        return refresh(house, run)

    timer.tick(look, runs, seen, **quiet)
    runs.input(look, runs, seen, **quiet)
    game.input(lambda g: gr.Dropdown(choices=sources(house, g), value=NEW_PLAY), game, source,
               trigger_mode="always_last", **quiet)
    gr.on([game.focus, source.focus], lambda g: gr.Dropdown(choices=sources(house, g)), game, source, **quiet)
    # who chooses a game and then a preset in haste: the last choice counts, not the first that was answered
    gr.on([game.input, preset.input], beginning, [game, preset], begin_with, trigger_mode="always_last", **quiet)
    # a training's process takes seconds to begin, and a second one is not wanted meanwhile
    order = [game, preset, source, begin_with, minutes, name, seed, epochs, batch, rate]
    start.click(lambda: gr.Button("Starting: reading the game", interactive=False), None, start, **quiet).then(
        lambda *values: begin(house, *values), order, runs, **quiet).then(
        lambda: gr.Button("Start training", interactive=True), None, start, **quiet).then(look, runs, seen, **quiet)
    stop.click(lambda run: told(house.jobs.stop, run), runs, None, **quiet).then(look, runs, seen, **quiet)
    resume.click(lambda run: told(house.jobs.resume, run), runs, None, api_visibility="private").then(
        look, runs, seen, **quiet)
    delete.click(lambda run: told(house.jobs.delete, run), runs, None, js=CONFIRM, **quiet).then(
        look, runs, seen, **quiet)
    play.click(None, moment, None, js=OPEN_JS)
    return timer, seen


NOTHING = ('<p class="none">No training yet. Choose a game and start; <b>toy</b> with <b>tiny</b> takes a '
           'minute or two.</p>')
CONFIRM = "(run) => { if (!confirm(`Delete ${run}, its moments and its data?`)) throw new Error('kept'); return run; }"


def sources(house: House, game: str) -> list[tuple[str, str]]:
    """What a game can be learned from: (words, value)."""
    own = [(OWN_PLAY, OWN_PLAY)] if house.tapes.own(game) else []
    return [(NEW_PLAY, NEW_PLAY), *own, *((f"{folder.name} ({words})", folder.name)
                                          for folder, words in house.datasets(game))]


def beginning(game: str, preset: str) -> gr.Dropdown:
    """What a world of this size can begin with: its game's own dream where there is one, or what another one knows."""
    fits = list(beginnings(PRESETS[preset](game).agent))
    best = next((name for name in (game, TEACHER) if name in fits), NEW_WEIGHTS)
    return gr.Dropdown([NEW_WEIGHTS, *((f"the dream of {name}", name) for name in fits)], value=best,
                       allow_custom_value=True, visible=bool(fits), label="Begin with",
                       info="another game's dream learns several times faster than new weights")


def begin(house: House, game: str, preset: str, source: str, begin_with: str, minutes: float | None, name: str,
          seed: float | None, epochs: float | None, batch: float | None, rate: float | None) -> Any:
    """Starts a run; the page then looks at it."""
    try:
        # what does not fit was chosen before the preset was changed a moment ago
        initial = beginnings(PRESETS[preset](game).agent).get(begin_with)
        dataset = None if source == NEW_PLAY else str(house.dataset(game, source, OWN_PLAY))
        order = Order(str(game), preset, name or "", minutes or None, dataset,
                      None if initial is None else str(initial), int(seed or 0),
                      int(epochs) if epochs else None, int(batch) if batch else None, rate or None)
        made = house.jobs.start(order)
    except (JobError, ValueError) as error:
        raise gr.Error(f"This cannot be trained: {error}", print_exception=False) from None
    return gr.Radio(choices=choices(house), value=made, visible=True)


def told(act: Any, run: str) -> None:
    """Does something to a run; what is wrong is shown to the person."""
    try:
        act(run)
    except JobError as error:
        raise gr.Error(f"That did not work: {error}", print_exception=False) from None


def choices(house: House) -> list[tuple[str, str]]:
    """The runs by name, with a word on each."""
    return [(f"{name} · {house.jobs.status(name).state}", name) for name in house.jobs.names()]


def refresh(house: House, run: str | None) -> list[Any]:
    """Everything that is seen of the runs, anew."""
    names = house.jobs.names()
    if not names:
        return [gr.Radio(choices=[], value=None, visible=False), NOTHING, *[gr.Button(visible=False)] * 4, "", ""]
    run = run if run in names else names[0]
    s = house.jobs.status(run)
    folder = Run(house.settings.runs / run)
    progress = progress_of(s.config, read_metrics(folder.folder / "metrics.jsonl"))
    moments = house.shelf.moments(run) if folder.exists else []
    training = s.state in ("training", "stopping")
    return [gr.Radio(choices=choices(house), value=run, visible=True), headline(s, progress, house.jobs.log(run, 1)),
            gr.Button(visible=training and s.ours, interactive=s.state == "training",
                      value="Stopping: saving everything" if s.state == "stopping" else "Stop"),
            gr.Button(visible=s.state in ("stopped", "failed") and folder.exists),
            gr.Button(visible=bool(moments), value=f"Play its dream ({moments[-1][1]})" if moments else ""),
            gr.Button(visible=not training), plots(s, progress) + house.samples.of(folder),
            moments[-1][0] if moments else ""]


def headline(s: Status, p: Progress, words: str) -> str:
    """State, place and time of a run."""
    left = p.left
    if s.state == "training" and s.started is not None:
        left = f"{clock(time.time() - s.started)} so far" + (f", {left}" if left else "")
        if s.until is not None:
            left += f", stops in {clock(max(0, s.until - time.time()))}"
    place = (now_of(words) or p.words) if s.state == "training" else p.words
    facts = [place, f"{p.steps:,} steps of play" if p.steps else "", left if s.state == "training" else ""]
    line = " · ".join(fact for fact in facts if fact)
    if s.state in ("failed", "unreadable"):
        line = s.last_words or words
    moving = ' <i class="spin"></i>' if s.state in ("training", "stopping") else ""
    kind = "" if s.state == "unreadable" else f"{escape(s.config.game)}, {s.config.preset}"
    return (f'<div class="run {s.state}"><h2>{escape(s.name)} <small>{kind}</small>'
            f'</h2><p>{moving}<b>{s.state}</b> {escape(line)}</p>'
            f'<div class="bar" role="progressbar" aria-valuenow="{100 * p.share:.0f}" aria-valuemin="0" '
            f'aria-valuemax="100"><i style="width:{100 * p.share:.1f}%"></i></div></div>')


def plots(s: Status, p: Progress) -> str:
    """The curves of a run."""
    known = reference(s.config.game)
    baselines = [] if known is None else [("random", known.random), ("human", known.human)]
    violet = {name: Curve("loss", points) for name, points in p.losses.items()}
    drawn = [chart(title, [violet[name]] if name in violet else [], "updates", log=True)
             for name, title in (("denoiser", "Drawing frames: loss"), ("reward_end", "Rewards and ends: loss"))
             if not s.config.model_free]
    teal = Curve("agent", p.scores, "var(--reality)", "var(--reality-ink)")
    drawn.append(chart("Score in the real game", [teal], "epochs", baselines=baselines,
                       empty="the agent has not played the real game yet"))
    return f'<div class="charts">{"".join(drawn)}</div>'


assert {value for _, value in PRESET_WORDS} == set(PRESETS)
