"""The shell: tabs, theme and styles on Gradio, mounted at the root. Nothing is fetched from, or told to, anybody else.

Our own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr

from app.web.tabs import compare, models, train

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.web.house import House

STYLE = Path(__file__).parents[1] / "static" / "shell.css"
SCRIPTS = ("player", "tapes", "blind", "shell")
HEAD = """<link rel="stylesheet" href="/ui/look.css"><link rel="icon" href="/ui/icon.svg" type="image/svg+xml">
<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">
""" + "".join(f'<script type="module" src="/ui/{name}.js"></script>' for name in SCRIPTS)
OWNER = "/studio"
"""Where the owner's tabs are, where there are visitors too."""


def mount(app: FastAPI, house: House) -> None:
    """Puts the tabs at `/`; beyond loopback those for visitors, and the owner's at `/studio`."""
    options: dict[str, Any] = {
        "theme": theme(), "css": STYLE.read_text(encoding="utf-8"), "head": HEAD, "footer_links": [],
        "show_error": True, "ssr_mode": False, "pwa": False, "mcp_server": False, "enable_monitoring": False,
        "run_history": False, "max_file_size": "512mb"}
    access = house.settings.access
    if not access.loopback and not access.public:
        gr.mount_gradio_app(app, tabs(house, is_owner=True), path=OWNER, **options)
    gr.mount_gradio_app(app, tabs(house, is_owner=access.loopback), path="/", **options)


def tabs(house: House, is_owner: bool) -> gr.Blocks:
    """All tabs of the owner, or those that are for visitors: what a visitor must not do has no way to be asked for."""
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    with gr.Blocks(title="DIAMOND playground", analytics_enabled=False, fill_width=True,
                   delete_cache=(3600, 3600)) as blocks:
        gr.HTML(BRAND, elem_id="brand", padding=False, js_on_load=None)
        with gr.Tabs(elem_id="tabs") as choice:
            with gr.Tab("Play", id="play"):
                gr.HTML("<dream-player></dream-player>", elem_id="play", padding=False, apply_default_css=False,
                        js_on_load=None)
            if is_owner:
                with gr.Tab("Train", id="train") as training:
                    timer, running = train.build(house)
            with gr.Tab("Record", id="record"):
                gr.HTML("<dream-tapes></dream-tapes>", padding=False, apply_default_css=False, js_on_load=None)
            with gr.Tab("Compare", id="compare") as comparing:
                shown = compare.build(house)
            if is_owner:
                with gr.Tab("Models", id="models") as choosing:
                    listed = models.build(house)
        comparing.select(lambda: compare.refresh(house), None, shown, **quiet)
        if is_owner:
            choosing.select(lambda: models.refresh(house), None, listed, **quiet)
            training.select(lambda run: train.refresh(house, run), running[0], running, **quiet)
            # one listener that answers one choice after the other: two could overtake each other, and a page that was
            # loaded with haste would never look at its training
            choice.select(is_watched, None, timer, trigger_mode="always_last", queue=False, **quiet)
    return blocks


def is_watched(chosen: gr.SelectData) -> gr.Timer:
    """The timer of the train tab runs while that tab is seen."""
    return gr.Timer(active=chosen.value == "Train")


BRAND = """<span class="brand"><img src="/ui/icon.svg" alt="" width="22" height="22">DIAMOND</span>"""


def theme() -> gr.themes.Base:
    """Gradio's variables in terms of ours, the same names in both themes: look.css knows which is which."""
    font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace"]
    base = gr.themes.Base(primary_hue="violet", secondary_hue="teal", neutral_hue="slate", font=font, font_mono=mono,
                          radius_size="md", text_size="md")
    known = set(vars(base))
    return base.set(**{name + theme: value for value, names in PAINT.items() for name in names.split()
                       for theme in ("", "_dark") if name + theme in known})


PAINT = {
    "var(--background)": "body_background_fill background_fill_primary input_background_fill checkbox_background_color "
                         "table_odd_background_fill",
    "var(--panel)": "background_fill_secondary block_background_fill panel_background_fill error_background_fill "
                    "button_secondary_background_fill checkbox_label_background_fill table_even_background_fill",
    "var(--raised)": "color_accent_soft button_secondary_background_fill_hover checkbox_label_background_fill_hover "
                     "checkbox_label_background_fill_selected",
    "var(--line)": "border_color_primary block_border_color panel_border_color input_border_color "
                   "checkbox_border_color checkbox_label_border_color button_secondary_border_color table_border_color",
    "var(--text)": "body_text_color button_secondary_text_color checkbox_label_text_color error_text_color "
                   "checkbox_label_text_color_selected",
    "var(--muted)": "body_text_color_subdued block_label_text_color block_title_text_color block_info_text_color "
                    "input_placeholder_color",
    "var(--dream)": "border_color_accent color_accent input_border_color_focus button_primary_background_fill "
                    "button_primary_background_fill_hover button_primary_border_color slider_color loader_color "
                    "checkbox_background_color_selected checkbox_border_color_selected checkbox_border_color_focus",
    "var(--dream-ink)": "link_text_color link_text_color_hover link_text_color_active link_text_color_visited",
    "var(--red)": "error_border_color",
    "#0b0d12": "button_primary_text_color",
    "transparent": "block_label_background_fill block_title_background_fill",
    "none": "block_shadow input_shadow input_shadow_focus button_primary_shadow button_secondary_shadow",
}
"""A colour of ours -> Gradio's names for what has it."""
