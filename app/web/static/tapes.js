// <dream-tapes>: recordings to watch, download, prove and go on from.

import { line } from "./gallery.js";
import { ask, at } from "./link.js";

const KEY = "diamond tapes", TOUCH = matchMedia("(pointer: coarse)").matches;

/** The names of the recordings that were made in this browser. */
export function mine() {
  try { return JSON.parse(localStorage.getItem(KEY)) ?? []; } catch { return []; }
}

export function remember(name) {
  // without storage the recording can still be downloaded, it is only not listed later
  try { localStorage.setItem(KEY, JSON.stringify([name, ...mine().filter((x) => x !== name)].slice(0, 200))); } catch { /* */ }
}

/** What a recording is called where it is kept as a file: no system's names hold these signs. */
export function fileOf(tape, ending) {
  return `${tape.title.replace(/[\\/:*?"<>|]/g, "-")} ${tape.id.slice(0, 4)}.${ending.toLowerCase()}`;
}

class DreamTapes extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) { this.load(); return; }
    const shadow = this.attachShadow({ mode: "open" });
    shadow.innerHTML = `<link rel="stylesheet" href="${new URL("player.css", import.meta.url)}">
      <link rel="stylesheet" href="${new URL("tapes.css", import.meta.url)}">
      <div class="tapes"><header><h2>Recordings</h2><p>Press ${TOUCH ? "Record" : "R"} while you play to begin one, and again to end it.</p>
      <span class="space"></span><label class="button">Bring in a tape<input type="file" accept=".tape,.mp4"></label>
      </header><p class="said" role="status"></p><div class="list"></div></div>`;
    this.list = shadow.querySelector(".list");
    this.cards = new Map();
    this.said = shadow.querySelector(".said");
    shadow.querySelector("input").addEventListener("change", (event) => this.bring(event.target));
    new IntersectionObserver(([entry]) => entry.isIntersecting && this.load()).observe(this);
    this.load();
  }

  async load() {
    try {
      const tapes = await ask(`api/tapes?names=${mine().join(",")}`);
      this.show(tapes);
    } catch (error) {
      this.say(`The recordings could not be fetched: ${error.message}`);
    }
  }

  /** A card stays while its recording does: a film may be playing in it, a title half written, a proof under way. */
  show(tapes) {
    const keyOf = ({ title, ...rest }) => JSON.stringify(rest), keys = new Set(tapes.map(keyOf));
    for (const [key, { card }] of this.cards) if (!keys.has(key)) { card.remove(); this.cards.delete(key); }
    this.list.querySelector(".empty")?.remove();
    tapes.forEach((tape, i) => {
      const key = keyOf(tape);
      if (!this.cards.has(key)) this.cards.set(key, { tape, card: this.card(tape) });
      const { card, tape: known } = this.cards.get(key), title = card.querySelector(".title");
      known.title = tape.title;
      if (!title.matches(":focus")) title.value = tape.title;
      if (this.list.children[i] !== card) this.list.insertBefore(card, this.list.children[i] ?? null);
    });
    if (!tapes.length) this.list.append(line("p", "empty", "Nothing recorded yet."));
  }

  say(words) { this.said.textContent = words; }

  async bring(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    this.say(`Reading ${file.name}`);
    try {
      const title = file.name.replace(/\.\w+$/, "");
      const tape = await ask(`api/tapes?title=${encodeURIComponent(title)}`, { method: "POST", body: file });
      remember(tape.id);
      this.say(`${tape.title} is here.`);
      this.load();
    } catch (error) {
      this.say(error.message);
    }
  }

  card(tape) {
    const card = line("article", "tape", "");
    const seconds = tape.steps / 15, made = new Date(tape.made * 1000);
    const head = line("header", "", "");
    head.append(this.title(tape), line("small", "", `${seconds.toFixed(1)} s · ${made.toLocaleString([], {
      dateStyle: "medium", timeStyle: "short" })}${tape.cuts ? ` · ${tape.cuts} cut${tape.cuts > 1 ? "s" : ""}` : ""}`));
    card.append(this.screen(tape), head, this.from(tape), this.tools(tape, card));
    return card;
  }

  /** The title, to be written over. */
  title(tape) {
    const title = line("input", "title", "");
    Object.assign(title, { value: tape.title, maxLength: 60, spellcheck: false });
    title.setAttribute("aria-label", "Title of the recording");
    title.addEventListener("keydown", (event) => {
      if (event.key === "Escape") title.value = tape.title;
      if (["Enter", "Escape"].includes(event.key)) title.blur();
    });
    title.addEventListener("change", async () => {
      try {
        this.say("");
        const named = await ask(`api/tapes/${tape.id}/title?title=${encodeURIComponent(title.value)}`, { method: "POST" });
        tape.title = named.title;
        for (const link of title.closest("article").querySelectorAll("a[download]")) link.download = fileOf(tape, link.textContent);
      } catch (error) { this.say(error.message); }
      title.value = tape.title;
    });
    return title;
  }

  screen(tape) {
    if (!tape.has_film) return line("p", "screen none", "A tape without a film. Dream it again to see it.");
    const film = document.createElement("video");
    film.className = "screen";
    film.src = at(`api/tapes/${tape.id}.mp4`);
    film.controls = film.loop = film.muted = film.playsInline = true;
    film.preload = "metadata";
    return film;
  }

  /** A slider over the steps, and the way into the dream there. */
  from(tape) {
    const row = line("div", "from", "");
    if (!tape.dream) {
      row.append(line("small", "", `No dream of ${tape.game} is installed to go on in.`));
      return row;
    }
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: tape.steps, value: 0 });
    slider.setAttribute("aria-label", "Where to go on");
    const go = line("button", "", "Dream it again");
    go.type = "button";
    slider.addEventListener("input", () => {
      go.textContent = slider.value === "0" ? "Dream it again" : `Go on from ${(slider.value / 15).toFixed(1)} s`;
      const film = row.parentElement.querySelector("video");
      if (film?.duration) { film.pause(); film.currentTime = Math.min(film.duration - 0.01, slider.value / 15); }
    });
    go.addEventListener("click", () => window.dispatchEvent(new CustomEvent("dream-open", {
      detail: { game: tape.dream, tape: tape.id, at: Number(slider.value) } })));
    row.append(slider, go);
    return row;
  }

  tools(tape, card) {
    const row = line("div", "tools", "");
    for (const ending of [...(tape.has_film ? ["mp4"] : []), ...(tape.has_loop ? ["gif", "webp"] : []), "tape"]) {
      const link = line("a", "", ending.toUpperCase());
      link.href = at(`api/tapes/${tape.id}.${ending}`);
      link.download = fileOf(tape, ending);
      row.append(link);
    }
    const act = (word, busy, job) => {
      const button = line("button", "quiet", word);
      button.type = "button";
      button.addEventListener("click", async () => {
        this.say("");
        button.disabled = true;
        button.textContent = busy;
        try { await job(button); } catch (error) { this.say(error.message); button.textContent = word; }
        button.disabled = false;
      });
      row.append(button);
    };
    if (tape.dream) {
      act("Prove", "Dreaming it again", async (button) => {
        const { same, steps, why } = await ask(`api/tapes/${tape.id}/prove`, { method: "POST" });
        button.textContent = same === steps ? "Same to the last bit" : `${same} of ${steps} steps are the same`;
        if (why) this.say(`${tape.title}: ${why}.`);
      });
    }
    act("Delete", "Deleting", async () => {
      if (!confirm(`Delete ${tape.title}?`)) throw new Error("Kept.");
      await ask(`api/tapes/${tape.id}`, { method: "DELETE" });
      card.remove();
      this.load();
    });
    return row;
  }
}

customElements.define("dream-tapes", DreamTapes);
