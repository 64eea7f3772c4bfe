"""A folder that runs as a Hugging Face Space as it is: an app file, requirements, weights, a card. Our own.

A Space is open to everybody: all who come are visitors, and nobody can train, import or delete there.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from app.web import NEEDS
from diamond_core.training.checkpoint import CARD, STARTS, WEIGHTS, CheckpointError, read_card
from diamond_core.training.library import find

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "diamond_core")
FILES = (WEIGHTS, CARD, STARTS, "fidelity.json", "loop.webp")
APP = '''"""The dream as a Space: everybody is a visitor here."""

from app.cli import prepare

prepare()

from app.web.serve import Place, serve  # noqa: E402
from app.web.space import settings  # noqa: E402

if __name__ == "__main__":
    serve(settings(), Place("0.0.0.0", 7860))
'''
NOT_FOR_A_SPACE = ("pygame-ce", "tensorboard", "matplotlib")
"""Only other commands need these."""


def export_space(folder: Path, checkpoints: Sequence[str]) -> list[str]:
    """Writes the folder; the titles of the dreams in it. Raises CheckpointError, ValueError."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: choose another folder or remove it first")
    found: dict[str, Path] = {}
    for path in map(find, checkpoints):
        card = read_card(path)
        if not (path / STARTS).is_file():
            raise CheckpointError(f"{path} carries no starting frames to dream from")
        name = card.game.replace(":", "-") if path.name.startswith("epoch_") else path.name
        if name in found:
            raise ValueError(f"{found[name]} and {path} would both be called {name}: export one of them to a folder of "
                             "another name first")
        found[name] = path
    for name, path in found.items():
        target = folder / "checkpoints" / name
        target.mkdir(parents=True)
        for file in FILES:
            if (path / file).is_file():
                shutil.copyfile(path / file, target / file)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "desktop"))
    shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    (folder / "space.py").write_text(APP, encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card_of(list(found)), encoding="utf-8")
    return list(found)


def settings() -> object:
    """How a Space is served: open to everybody, dreams from its own folder, nothing kept but tapes."""
    import os

    from app.web.access import Access
    from app.web.house import Settings
    from app.web.lobby import Bounds

    os.environ["DIAMOND_CHECKPOINTS"] = str(ROOT / "checkpoints")
    return Settings(access=Access(loopback=False, public=True), bounds=Bounds(players=4, idle=300))


def requirements() -> list[str]:
    """What the page needs, from the package's own metadata. Raises ValueError where it is not installed."""
    try:
        lines = [Requirement(line) for line in requires("diamond-playground") or []]
    except PackageNotFoundError:
        raise ValueError("the package is not installed: pip install -e '.[web]' first") from None
    wanted = [r for r in lines if (r.marker is None or r.marker.evaluate({"extra": "web"}))
              and r.name not in NOT_FOR_A_SPACE]
    # an installation older than the page does not know that the page needs these
    missing = sorted(set(NEEDS) - {r.name for r in wanted})
    return [f"{r.name}{r.specifier}" for r in wanted] + [f"{name}>={version(name)}" for name in missing]


def card_of(titles: Sequence[str]) -> str:
    """The Space's front page, with the lines that tell the Hub how to run it."""
    names = ", ".join(titles)
    return f"""---
title: "DIAMOND playground: {names}"
emoji: 💎
colorFrom: purple
colorTo: green
sdk: gradio
sdk_version: {version("gradio")}
app_file: space.py
pinned: false
license: mit
---

# Step into a dream: {names}

A diffusion network draws every frame while you play; no game runs behind it. Look at the emulator beside it with T,
see all futures with F, take a tape with R. Whoever else is here dreams in the same batch.

Made with `diamond export space`.
"""
