"""The tab of the dreams themselves: their cards, bringing one in, throwing one out. For the owner only. Our own."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.web import imports
from app.web.jobs import JobError
from app.web.shelf import Unknown, offer_of
from diamond_core.envs import list_games
from diamond_core.training.checkpoint import CheckpointError, read_card
from diamond_core.training.library import installed
from diamond_core.training.progress import clock

if TYPE_CHECKING:
    from app.web.house import House

HUB = "eloialonso/diamond"
PARTS = {"denoiser": "frames", "reward_end": "rewards", "sight": "sight", "imitation": "imitation",
         "actor_critic": "agent"}
"""A network -> what it draws, foresees or is."""
CONFIRM = """(name) => { if (!name || !confirm(`Delete ${name}?`)) throw new Error("kept"); return name; }"""


def build(house: House) -> list[Any]:
    """Lays the tab out; returns what `refresh` fills."""
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=0, min_width=340, elem_classes="form"):
            gr.HTML("<h2>Bring in a dream</h2>", padding=False)
            game = gr.Dropdown(list_games(), value=None, label="Game that it was trained on",
                               info="where the files do not say it", allow_custom_value=True)
            name = gr.Textbox(label="Name", max_lines=1, placeholder="the game's")
            files = gr.File(label="Files", file_count="multiple", type="filepath",
                            file_types=[".pt", ".pth", ".safetensors", ".json"], height=140)
            upload = gr.Button("Bring in these files", variant="primary")
            hub = gr.Textbox(label="Or from the Hugging Face Hub", value=HUB, max_lines=1)
            fetch = gr.Button("Fetch from the Hub")
            moment = gr.Dropdown([], label="Or a training's newest moment", visible=False)
            keep = gr.Button("Keep it as a dream", visible=False)
        with gr.Column():
            gr.HTML("<h2>Installed</h2>", padding=False)
            said = gr.HTML("", padding=False, elem_classes="said")
            cards = gr.HTML(listing(), padding=False, elem_id="cards")
            with gr.Row(elem_classes="actions", visible=False) as removal:
                chosen = gr.Dropdown([], label="Which dream", scale=0, min_width=260)
                delete = gr.Button("Delete", scale=0)
    shown = [cards, chosen, removal, moment, keep]
    shelf = house.settings.checkpoints
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    upload.click(lambda f, g, n: brought(lambda: imports.bring_files([Path(x) for x in f or []], g or "", n, shelf)),
                 [files, game, name], said, **quiet).success(lambda: refresh(house), None, shown, **quiet)
    fetch.click(lambda r, g, n: brought(lambda: imports.bring_from_hub(r, g or "", n, shelf)), [hub, game, name], said,
                **quiet).success(lambda: refresh(house), None, shown, **quiet)
    keep.click(lambda m, n: brought(lambda: imports.bring_moment(house.shelf.path_of(m or "", True), n, shelf)),
               [moment, name], said, **quiet).success(lambda: refresh(house), None, shown, **quiet)
    delete.click(lambda n: thrown(n, shelf), chosen, said, js=CONFIRM, **quiet).success(
        lambda: refresh(house), None, shown, **quiet)
    return shown


def brought(bring: Any) -> str:
    """Brings something in; what is wrong is shown to the person."""
    try:
        folder = bring()
    except (CheckpointError, JobError, Unknown, ValueError, OSError) as error:
        raise gr.Error(f"This could not be brought in: {error}", print_exception=False) from None
    return f"<p>{escape(folder.name)} is here. It is in the gallery of the Play tab.</p>"


def thrown(name: str, shelf: Path) -> str:
    """Deletes a checkpoint."""
    try:
        imports.throw_out(name or "", shelf)
    except (CheckpointError, OSError) as error:
        raise gr.Error(f"This could not be deleted: {error}", print_exception=False) from None
    return f"<p>{escape(name)} is gone.</p>"


def refresh(house: House) -> list[Any]:
    """The cards, and what may be deleted or kept, anew."""
    names = list(imports.own(house.settings.checkpoints))
    newest = [moments[-1][0] for run in house.jobs.names() if (moments := moments_of(house, run))]
    return [listing(), gr.Dropdown(choices=names, value=None), gr.Row(visible=bool(names)),
            gr.Dropdown(choices=newest, value=None, visible=bool(newest)), gr.Button(visible=bool(newest))]


def moments_of(house: House, run: str) -> list[tuple[str, str]]:
    """A run's saved moments; none while it has written nothing yet."""
    try:
        return house.shelf.moments(run)
    except Unknown:
        return []


def listing() -> str:
    """All installed checkpoints as cards."""
    cards = [card(name, path) for name, path in installed().items()]
    return f'<div class="models">{"".join(cards)}</div>' if cards else '<p class="none">Nothing is installed yet.</p>'


def card(name: str, path: Path) -> str:
    """What a checkpoint says of itself."""
    try:
        c = read_card(path)
    except CheckpointError as error:
        return f'<article><h3>{escape(name)}</h3><p class="none">{escape(str(error))}</p></article>'
    offer = offer_of(name, path)
    size = sum(p.stat().st_size for p in path.iterdir() if p.is_file()) / 2**20
    updates = c.training.get("updates")
    facts = {"game": c.game, "actions": ", ".join(a.lower() for a in c.action_names),
             "size": f"{size:.1f} MiB", "picture": "{} × {}".format(*c.config.image_size[::-1]),
             "denoising steps": str(c.config.sampler.num_steps),
             "trained": clock(c.training["seconds"]) if isinstance(c.training.get("seconds"), int | float) else "",
             "real steps": f"{c.training['steps']:,}" if isinstance(c.training.get("steps"), int) else "",
             "updates": ", ".join(f"{PARTS.get(k, k)} {v:,}" for k, v in updates.items() if isinstance(v, int))
             if isinstance(updates, dict) else "", "from": str(c.training.get("imported_from", "")),
             "weights": c.sha256[:12]}
    rows = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in facts.items() if value)
    line = escape(offer.line) if offer else "cannot be dreamt: it has no starting frames"
    return f"<article><h3>{escape(name)}</h3><p>{line}</p><dl>{rows}</dl></article>"
