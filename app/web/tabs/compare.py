"""The tab in which dreams are held against the truth: fidelity reports beside each other, and a blind test. Our own."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.session.standing import holds_for, report_of
from app.web.charts import Curve, chart

if TYPE_CHECKING:
    from app.web.house import House


def build(house: House) -> list[Any]:
    """Lays the tab out; returns what `refresh` fills."""
    gr.HTML("<dream-blind></dream-blind>", padding=False, js_on_load=None, apply_default_css=False)
    gr.HTML("<h2>How true the dreams are</h2>", padding=False, elem_classes="heading")
    names = [offer.name for offer in house.shelf.offers()]
    chosen = gr.CheckboxGroup(names, value=names[:3], show_label=False, container=False, elem_id="compared")
    shown = gr.HTML(reports(house, names[:3]), padding=False, elem_id="reports")
    chosen.input(lambda some: reports(house, some), chosen, shown, show_progress="hidden", api_visibility="private")
    return [chosen, shown]


def refresh(house: House) -> list[Any]:
    """What was installed since the page was made."""
    names = [offer.name for offer in house.shelf.offers()]
    return [gr.CheckboxGroup(choices=names, value=names[:3]), reports(house, names[:3])]


def reports(house: House, names: list[str]) -> str:
    """The reports of some dreams beside each other."""
    offers = [offer for offer in house.shelf.offers() if offer.name in names]
    if not offers:
        return '<p class="none">Choose a dream above.</p>'
    return f'<div class="reports">{"".join(report(o.title, report_of(o.path), o.name) for o in offers)}</div>'


def report(title: str, found: dict[str, Any] | None, name: str) -> str:
    """One dream's report."""
    head = f"<article><h3>{escape(title)}</h3>"
    if found is None:
        return (f'{head}<p class="none">Not measured yet. <code>diamond evaluate fidelity {escape(name)} --dataset DATA'
                f"</code> does it.</p></article>")
    parts = [chart(f"{word}, by step of the dream", likeness(found[measure]), "steps")
             for measure, word in (("psnr", "Likeness in dB"), ("ssim", "Structural likeness"))]
    return f'{head}<dl>{"".join(facts(found))}</dl>{"".join(parts)}</article>'


def likeness(measure: dict[str, Any]) -> list[Curve]:
    """The dream's curve, and the last frame held as what it must beat."""
    def points(curve: dict[str, Any]) -> list[tuple[float, float]]:
        return [(i + 1.0, y) for i, y in enumerate(curve["mean"]) if y is not None]

    return [Curve("dream", points(measure["dream"])),
            Curve("held frame", points(measure["copy_last"]), "var(--muted)", "var(--muted)", dashed=True)]


def facts(found: dict[str, Any]) -> list[str]:
    """The main numbers, each beside its baseline."""
    more = " or more" if holds_for(found) == len(found["psnr"]["dream"]["mean"]) else ""
    lines = [("holds for", f"{holds_for(found)}{more} steps", "until a held frame is nearer")]
    following = found.get("following")
    if following and following.get("ratio") is not None:
        lines.append(("obeys", f"{100 * following['ratio']:.0f} %", "of how visibly the game obeys"))
    for kind, word in (("reward", "foresees rewards"), ("end", "foresees ends")):
        p = found["precision"].get(kind)
        if p and p.get("dream") is not None:
            early = p.get("within", {}).get("15", {}).get("dream")  # a report of earlier versions has none
            soon = "" if early is None else f"{early:.2f} in its first 15 steps, "
            lines.append((word, f"{p['dream']:.2f}", f"in the dream, {soon}{p['real']:.2f} on real frames, "
                                                     f"{p['base_rate']:.2f} by chance"))
    lines.append(("measured on", f"{found['rollouts']} dreams", f"of {found['coverage']['episodes']} held out"))
    return [f"<dt>{escape(name)}</dt><dd><b>{escape(value)}</b> <small>{escape(more)}</small></dd>"
            for name, value, more in lines]
