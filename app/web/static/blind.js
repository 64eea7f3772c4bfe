// <dream-blind>: two clips, which one is real? The score by the length of the clip; half is guessing.

import { line } from "./gallery.js";
import { ask, at } from "./link.js";

const KEY = "diamond blind", LENGTHS = [5, 15, 30, 60];

/** An error as a sentence. */
function sentence({ message }) { return `${message[0].toUpperCase()}${message.slice(1)}.`; }

class DreamBlind extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    const shadow = this.attachShadow({ mode: "open" });
    shadow.innerHTML = `<link rel="stylesheet" href="${new URL("player.css", import.meta.url)}">
      <link rel="stylesheet" href="${new URL("tapes.css", import.meta.url)}">
      <div class="blind"><h2>Which one is real?</h2>
      <div class="row"><select aria-label="Game"></select><select aria-label="Length of the clip">${LENGTHS.map((n) =>
        `<option value="${n}" ${n === 15 ? "selected" : ""}>${(n / 15).toFixed(1)} s</option>`).join("")}</select>
      <button type="button" class="next">Show me two</button><span class="said" role="status"></span></div>
      <div class="pair" hidden></div><div class="scores"></div></div>`;
    [this.game, this.length] = shadow.querySelectorAll("select");
    [this.pair, this.scores, this.said] = [".pair", ".scores", ".said"].map((name) => shadow.querySelector(name));
    this.button = shadow.querySelector(".next");
    this.button.addEventListener("click", () => this.next());
    new IntersectionObserver(([entry]) => entry.isIntersecting && this.load()).observe(this);
    try { this.kept = JSON.parse(localStorage.getItem(KEY)) ?? {}; } catch { this.kept = {}; }
    this.score();
  }

  /** The games that there are by now; the chosen one stays chosen. */
  async load() {
    try {
      const games = await ask("api/games"), chosen = this.game.value;
      this.game.replaceChildren(...games.map(({ title, name }) => new Option(title, name, false, name === chosen)));
      this.button.disabled = !games.length;
    } catch (error) {
      this.said.textContent = sentence(error);
    }
  }

  async next() {
    this.button.disabled = true;
    this.said.textContent = "Dreaming two clips";
    try {
      const steps = Number(this.length.value);
      const { name } = await ask(`api/blind?game=${encodeURIComponent(this.game.value)}&steps=${steps}`, { method: "POST" });
      this.pair.hidden = false;
      this.pair.replaceChildren(...[0, 1].map((side) => {
        const figure = line("figure", "", ""), button = line("button", "", ""), film = document.createElement("img");
        button.type = "button";
        button.setAttribute("aria-label", side === 0 ? "The left one is real" : "The right one is real");
        film.src = at(`api/blind/${name}/${side}.webp`);
        film.alt = "";
        button.append(film);
        button.addEventListener("click", () => this.choose(name, side, steps));
        figure.append(button, line("figcaption", "", ""));
        return figure;
      }));
      this.said.textContent = "Click the one that you think is real.";
    } catch (error) {
      this.said.textContent = sentence(error);
    }
    this.button.disabled = false;
    this.button.textContent = "Two others";
  }

  async choose(name, side, steps) {
    let real;
    try {
      ({ real } = await ask(`api/blind/${name}`, { method: "POST" }));
    } catch (error) {
      this.said.textContent = sentence(error);
      return;
    }
    [...this.pair.children].forEach((figure, i) => {
      const button = figure.querySelector("button"), world = i === real ? "reality" : "dream";
      button.disabled = true;
      button.classList.add(world);
      figure.querySelector("figcaption").textContent = world;
    });
    this.said.textContent = side === real ? "Right." : "That was the dream.";
    const [right, all] = this.kept[steps] ?? [0, 0];
    this.kept[steps] = [right + (side === real), all + 1];
    try { localStorage.setItem(KEY, JSON.stringify(this.kept)); } catch { /* counted on this page only */ }
    this.score();
  }

  score() {
    const rows = LENGTHS.filter((n) => this.kept[n]).flatMap((n) => {
      const [right, all] = this.kept[n], bar = line("i", "", "");
      bar.style.setProperty("--share", `${100 * right / all}%`);
      return [line("span", "", `${(n / 15).toFixed(1)} s`), bar, line("b", "", `${right} of ${all} right`)];
    });
    this.scores.replaceChildren(...(rows.length ? [line("small", "", "your score"), line("small", "", "guessing is the mark"),
      line("span", "", "")] : []), ...rows);
  }
}

customElements.define("dream-blind", DreamBlind);
