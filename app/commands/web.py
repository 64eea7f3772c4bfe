"""`diamond web` and `diamond export space`: the page in a browser, here or for others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from app.cli import parse


@dataclass(frozen=True)
class Web:
    """Opens one address where everything is done in a browser."""

    host: str = "127.0.0.1"
    """Where to listen; 0.0.0.0 for other machines too, which then need a link with a token."""
    port: int | None = None
    """Default: 7860, or the next that is free."""
    auth: str | None = None
    """user:password that lets visitors in without a link."""
    share: bool = False
    """A public address through Gradio's tunnel; whoever has the link is a visitor."""
    players: int = 8
    """Who comes later waits in a queue."""
    idle: float = 15.0
    """Minutes without a key after which a place is given up."""
    runs: Path = Path("runs")
    """Where trainings lie."""
    data: Path = Path("data")
    """Where datasets lie."""
    tapes: Path = Path("tapes")
    """Where recordings go."""
    steps: int | Literal["auto"] = "auto"
    """Denoising steps that a dream begins with; auto: as many as can be had at 15 frames a second."""
    device: str = "auto"
    origins: tuple[str, ...] = ()
    """Other sites whose pages may talk to this server, as in https://example.org."""


def web(args: list[str]) -> None:
    """Serves until Ctrl-C."""
    c: Web = parse(Web, "web", args)
    user, colon, password = (c.auth or "").partition(":")
    if c.auth is not None and not (user and colon and len(password) >= 8):
        raise ValueError("--auth expects user:password with a password of 8 characters or more")
    if c.players < 1 or not c.idle > 0:
        raise ValueError(f"--players must be 1 or more and --idle more than 0, got {c.players} and {c.idle}")
    for name, folder in {"--runs": c.runs, "--data": c.data, "--tapes": c.tapes}.items():
        if folder.is_file():
            raise ValueError(f"{name} {folder} is a file, expected a folder")
    from app.web import require

    require()
    from app.web.access import Access
    from app.web.house import Settings
    from app.web.lobby import Bounds
    from app.web.protocol import MAX_STEPS
    from app.web.serve import Place, is_loopback, serve
    from diamond_core.config import RuntimeConfig
    from diamond_core.device import resolve
    from diamond_core.diffusion.sampler import check_num_steps
    from diamond_core.training.library import shelves

    resolve(RuntimeConfig(device=c.device))  # a device that is not there is told now, not to who plays
    if c.steps != "auto":
        check_num_steps(c.steps)
        if c.steps > MAX_STEPS:
            raise ValueError(f"the page dreams for several, with up to {MAX_STEPS} denoising steps: got {c.steps}")

    place = Place(c.host, c.port, c.share)
    private = is_loopback(c.host) and not c.share and c.auth is None
    access = Access(loopback=private, login=(user, password) if c.auth else None, origins=c.origins)
    shelf = next(iter(shelves()), Path("checkpoints"))
    bounds = Bounds(players=c.players, idle=c.idle * 60)
    serve(Settings(runs=c.runs, data=c.data, tapes=c.tapes, checkpoints=shelf, device=c.device, steps=c.steps,
                   bounds=bounds, access=access), place)


@dataclass(frozen=True)
class ExportSpace:
    """A folder that runs as a Hugging Face Space as it is."""

    folder: Positional[Path]
    """A new folder."""
    checkpoint: tuple[str, ...]
    """A name, a checkpoint folder or a run; several become a gallery."""


def export_space(args: list[str]) -> None:
    """Writes the folder and says how to send it."""
    c: ExportSpace = parse(ExportSpace, "export space", args)
    from app.web import require

    require()
    from app.web.space import export_space as write

    titles = write(c.folder, c.checkpoint)
    size = sum(p.stat().st_size for p in c.folder.rglob("*") if p.is_file()) / 2**20
    print(f"{', '.join(titles)} is in {c.folder}, {size:.1f} MiB; try it: cd {c.folder} && python space.py; send it: "
          f"hf upload USER/NAME {c.folder} --repo-type space")
