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

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.web.house import House

STYLE = Path(__file__).parents[1] / "static" / "shell.css"
HEAD = """<link rel="stylesheet" href="ui/look.css"><link rel="icon" href="ui/icon.svg" type="image/svg+xml">
<script type="module" src="ui/player.js"></script>
<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">"""


def mount(app: FastAPI, house: House) -> None:
    """Puts the tabs at `/`."""
    blocks = tabs(house)
    gr.mount_gradio_app(app, blocks, path="/", theme=theme(), css=STYLE.read_text(), head=HEAD, footer_links=[],
                        show_error=True, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False,
                        run_history=False, max_file_size="512mb")


def tabs(house: House) -> gr.Blocks:
    """All tabs."""
    with gr.Blocks(title="DIAMOND playground", analytics_enabled=False, fill_width=True, fill_height=True,
                   delete_cache=(3600, 3600)) as blocks:
        gr.HTML(BRAND, elem_id="brand", padding=False)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Play", id="play"):
                gr.HTML("<dream-player></dream-player>", elem_id="play", padding=False, apply_default_css=False,
                        js_on_load=None)
            with gr.Tab("Train", id="train"):
                gr.Textbox(label="x")
                gr.Button("go", variant="primary")
    return blocks


BRAND = """<span class="brand"><img src="ui/icon.svg" alt="" width="22" height="22">DIAMOND</span>"""


def theme() -> gr.themes.Base:
    """Gradio's variables in terms of ours, the same names in both themes: look.css knows which is which."""
    font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace"]
    base = gr.themes.Base(primary_hue="violet", secondary_hue="teal", neutral_hue="slate", font=font, font_mono=mono,
                          radius_size="md", text_size="md")
    values: dict[str, Any] = {
        "body_background_fill": "var(--background)", "body_text_color": "var(--text)",
        "body_text_color_subdued": "var(--muted)", "background_fill_primary": "var(--background)",
        "background_fill_secondary": "var(--panel)", "border_color_primary": "var(--line)",
        "border_color_accent": "var(--dream)", "color_accent": "var(--dream)", "color_accent_soft": "var(--raised)",
        "block_background_fill": "var(--panel)", "block_border_color": "var(--line)", "block_label_text_color": "var(--muted)",
        "block_label_background_fill": "transparent", "block_title_text_color": "var(--muted)", "block_info_text_color": "var(--muted)",
        "panel_background_fill": "var(--panel)", "panel_border_color": "var(--line)",
        "input_background_fill": "var(--background)", "input_border_color": "var(--line)",
        "input_border_color_focus": "var(--dream)", "input_placeholder_color": "var(--muted)",
        "button_primary_background_fill": "var(--dream)", "button_primary_background_fill_hover": "var(--dream)",
        "button_primary_text_color": "#0b0d12", "button_primary_border_color": "var(--dream)",
        "button_secondary_background_fill": "var(--panel)", "button_secondary_background_fill_hover": "var(--raised)",
        "button_secondary_text_color": "var(--text)", "button_secondary_border_color": "var(--line)",
        "checkbox_background_color": "var(--background)", "checkbox_background_color_selected": "var(--dream)",
        "checkbox_border_color": "var(--line)", "checkbox_border_color_selected": "var(--dream)",
        "checkbox_label_background_fill": "var(--panel)", "checkbox_label_background_fill_selected": "var(--raised)",
        "checkbox_label_background_fill_hover": "var(--raised)", "checkbox_label_border_color": "var(--line)",
        "checkbox_label_text_color": "var(--text)", "checkbox_label_text_color_selected": "var(--text)",
        "slider_color": "var(--dream)", "loader_color": "var(--dream)", "link_text_color": "var(--dream-ink)",
        "link_text_color_hover": "var(--dream-ink)", "link_text_color_active": "var(--dream-ink)",
        "link_text_color_visited": "var(--dream-ink)", "table_border_color": "var(--line)",
        "table_even_background_fill": "var(--panel)", "table_odd_background_fill": "var(--background)",
        "error_background_fill": "var(--panel)", "error_border_color": "var(--red)", "error_text_color": "var(--text)",
        "stat_background_fill": "var(--dream)", "block_shadow": "none", "input_shadow": "none", "input_shadow_focus": "none",
        "button_primary_shadow": "none", "button_secondary_shadow": "none"}
    known = set(vars(base))
    return base.set(**{name + part: x for name, x in values.items() for part in ("", "_dark")
                       if name + part in known})
