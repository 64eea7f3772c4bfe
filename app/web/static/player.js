// <dream-player>: the gallery, the dream and everything around it. Attributes: game, watch, embed.

import { Drawer } from "./drawer.js";
import { Gallery, line } from "./gallery.js";
import { Keys, named } from "./keys.js";
import { base, Link, seedOf } from "./link.js";
import { denoising, fan } from "./overlays.js";
import { colour, difference, fit, Panel } from "./screen.js";
import { remember } from "./tapes.js";
import { ICONS, TEMPLATE } from "./template.js";
import { Timeline } from "./timeline.js";

const VIEWS = ["dream", "twin", "reality"], WHO = ["you", "help", "agent", "random"];

class DreamPlayer extends HTMLElement {
  connectedCallback() {
    if (this.root) return;
    const shadow = this.attachShadow({ mode: "open" });
    shadow.innerHTML = `<link rel="stylesheet" href="${new URL("player.css", import.meta.url)}">${TEMPLATE}`;
    this.root = shadow.querySelector(".root");
    this.find = (selector) => this.root.querySelector(selector);
    this.panels = Object.fromEntries(["dream", "reality", "screen"].map((name) =>
      [name, new Panel(this.find(`figure.${name}`))]));
    this.numbers = Object.fromEntries([...this.root.querySelectorAll("[data-number]")].map((b) => [b.dataset.number, b]));
    this.wants = { difference: false, screen: false };
    this.ways = [];
    this.keys = new Keys((t, fields) => this.send(t, fields), (event) => this.isListening(event));
    this.timeline = new Timeline(this.find(".timeline"), this.find(".strip output"), (moment, done) => this.rewind(moment,
      done));
    this.drawer = new Drawer(this);
    this.gallery = new Gallery(this.find(".cards"), (game) => this.open({ game }));
    this.listen();
    this.begin();
  }

  // what is begun

  begin() {
    const asked = new URLSearchParams(location.hash.slice(1) || location.search.slice(1));
    const watch = this.getAttribute("watch") ?? asked.get("watch"), game = this.getAttribute("game") ?? asked.get("game");
    this.embedded = this.hasAttribute("embed") || asked.has("embed");
    this.root.classList.toggle("embedded", this.embedded);
    if (watch) this.watch(watch);
    else if (game) {
      this.open({ game, seed: seedOf(asked.get("seed")), nth: Number(asked.get("nth")) || 0,
                  actions: asked.get("actions") ?? "", drawn: asked.get("drawn") ?? "" }, true);
    }
  }

  /** Into a dream: { game, seed, nth, actions, drawn, tape, at }; `arrived` by an address that says so. */
  open(dream, arrived = false) {
    this.dream = { seed: Math.floor(Math.random() * 2 ** 24), ...dream };
    this.arrived = arrived;
    if (!arrived) this.address();
    this.again = false;
    this.state("play");
    this.root.classList.add("blank");
    this.find("[data-title]").textContent = this.gallery.games.find(({ name }) => name === dream.game)?.title ?? "";
    this.veil("Finding a place to sleep", { moves: true });
    if (this.link && !this.link.closed) this.link.send("open", this.dream);
    else this.connect({});
    this.find(".play").focus({ preventScroll: true });
  }

  /** The way back leads out of the dream, and whoever loads the page again begins it again. What came by a link stays
      in the link's place in the history. */
  address() {
    if (!this.isPage) return;
    const { game, seed, tape } = this.dream, here = this.arrived || history.state?.dream;
    const to = location.pathname + location.search + (tape ? "" : `#${new URLSearchParams({ game, seed })}`);
    history[here ? "replaceState" : "pushState"](here ? history.state : { dream: true }, "", to);
  }

  /** Whether the address is this player's own, not that of a page around it. */
  get isPage() { return !this.embedded && !this.hasAttribute("game") && !this.hasAttribute("watch"); }

  watch(watch) {
    this.arrived = true;
    this.state("play");
    this.root.classList.add("watching", "blank");
    this.veil("Looking for the dream", { moves: true });
    this.connect({ watch });
  }

  connect(first) {
    this.link?.close();
    this.link = new Link((name, fields, pictures) => this[`on_${name}`]?.(fields, pictures), first);
  }

  /** To the games; `back` also in the browser's history, where the dream has put itself there. */
  leave(back = true) {
    if (back && history.state?.dream) history.back();
    else if (this.arrived && this.isPage) history.replaceState(history.state, "", location.pathname);
    this.arrived = false;
    this.link?.close();
    this.link = this.dream = this.game = null;
    this.root.classList.remove("watching", "awake", "recording");
    this.drawer.toggle(false);
    this.close();
    this.state("gallery");
    this.gallery.load();
  }

  /** Whether it was sent. */
  send(t, fields) { return this.link?.send(t, fields) ?? false; }

  state(name) { this.root.dataset.state = name; }

  // what the server says

  on_hello() { this.again = false; if (this.dream) this.send("open", this.dream); }

  on_queue({ position, players }) {
    const taken = players === 1 ? "Somebody is dreaming here" : `${players} are dreaming here`;
    this.veil(`${taken} already. You are number ${position} in line; it starts by itself.`, { moves: true });
  }

  on_loading({ what }) { this.veil(what, { moves: true }); }

  on_opened(fields) {
    this.game = fields;
    // a dream that goes on after the line was cut may still wait because nobody saw it
    if (!this.again) { this.view = null; this.hiddenNow = this.waits = false; this.root.classList.add("blank"); }
    this.again = false;
    this.path = this.from = null;
    this.away(this.unseen);
    this.find("[data-title]").textContent = fields.title;
    this.root.classList.toggle("watching", fields.watching);
    this.root.classList.toggle("real", fields.reality);
    for (const name of ["twin", "reality"]) this.find(`[data-choice=show] [data-value=${name}]`).disabled = !fields.reality;
    this.find("[data-wake]").hidden = !fields.reality;
    this.timeline.replace(fields.marks ?? [], fields.moment ?? 0);
    this.ways = [];
    this.numbers.way.textContent = "–";
    this.drawer.opened(fields);
    this.pads();
    this.hint();
    this.moments(fields.moments ?? []);
    this.veil("The first frame", { moves: true });
  }

  on_view(view, pictures) {
    // what was pressed while time stood still waited for time, not for a picture
    if (this.view?.paused) this.keys.forget();
    const said = this.view?.note;
    this.view = view;
    this.veil(null);
    this.root.classList.remove("blank");
    view.pictures.forEach((name, i) => this.panels[name].draw(pictures[i]));
    this.arrange();
    if (!this.wants.difference || view.show !== "twin") this.find("canvas.over").hidden = true;
    else if (view.pictures.includes("reality")) this.differ();
    this.timeline.add(view.marks, view.moment, view.last);
    this.timeline.draw();
    if (view.echo !== null) this.measured(this.keys.way(view.echo));
    this.number(view);
    this.patience(view);
    if (view.note && view.note !== said) this.say(view.note); // the answer to a wish may have come meanwhile
    this.root.classList.toggle("awake", view.awake);
    this.root.classList.toggle("paused", view.paused);
    this.root.classList.toggle("recording", view.tape !== null);
    this.word("pause", view.paused ? "Go on" : "Pause", view.paused ? "play" : "pause");
    this.word("moon", view.awake ? "Fall asleep" : "Wake up", view.awake ? "moon" : "sun");
    this.word("record", view.tape === null ? "Record" : `Stop ${(view.tape / 15).toFixed(0)} s`);
    this.choose("who", view.who);
    this.choose("show", view.show);
    this.drawer.seen(view);
    this.dispatchEvent(new CustomEvent("dream-view", { detail: view, bubbles: true, composed: true }));
  }

  on_sheet(fields, [bitmap]) {
    // it was on its way when it was no longer wanted
    if (fields.what === "fan" && !this.asking) { this.send("unfork"); return; }
    this.asking = false;
    const sheet = this.find(".sheet"), done = () => { this.overlay = null; this.send("unfork"); this.focusPlay(); };
    if (fields.what === "fan") {
      this.overlay = fan(sheet, fields, bitmap, (action) => { this.overlay = null; this.send("branch", { action });
        this.focusPlay(); }, done);
    } else {
      this.overlay = denoising(sheet, fields, bitmap, done);
    }
  }

  on_timeline({ marks, moment }) { this.timeline.replace(marks, moment); this.timeline.draw(); }

  on_note({ text }) { this.say(text); }

  on_recording({ id }) { remember(id); }

  on_recorded(tape) {
    const kept = this.find(".kept");
    clearTimeout(this.keeping);
    this.drawer.recorded(tape, kept);
    this.keeping = setTimeout(() => { kept.textContent = ""; }, 20000);
  }

  on_unlinked({ why }) { this.drawer.share("", `${why[0].toUpperCase()}${why.slice(1)}.`); }

  on_link({ query }) {
    this.drawer.share(this.passOn({}, new URLSearchParams(query)), `This link dreams the same dream again, step by step, and then it is theirs.${this.drawer.near()}`);
  }

  /** An address for others: where not everybody may come in, it holds the visitors' token, never the owner's. */
  passOn(query, hash = "") {
    const url = new URL("play", base), { token } = this.game;
    for (const [name, value] of Object.entries({ ...query, ...(token && { token }) })) url.searchParams.set(name, value);
    url.hash = hash.toString();
    return url.href;
  }

  on_ping({ ms }) { this.find(".line").title = `the way to the server and back takes ${ms.toFixed(0)} ms`; }

  on_lost({ left, held }) {
    this.keys.releaseAll();
    this.again = held;
    this.veil(held ? `The connection is lost. Trying again; your dream waits ${left} s more.` :
              "The connection is lost. Trying again.", { moves: true });
  }

  on_gone({ why }) {
    const dream = this.game && this.dream;
    this.link = null;
    this.veil(`${why[0].toUpperCase()}${why.slice(1)}.`, dream ? { word: "Dream on", act: () => this.open(dream) } :
              { word: "Games", act: () => this.leave() });
  }

  /** A machine that is too slow for a while: there is a way out, and it is said once. */
  patience(view) {
    this.slow = view.slip && !view.paused ? (this.slow ?? 0) + 1 : 0;
    if (this.slow === 60) {
      this.say(this.drawer.inputs.auto.checked
        ? "This machine is slower than the game: time goes as fast as it can, for all alike."
        : "This machine is slower than the game. Under More: as many denoising steps as time allows.");
    }
  }

  // what is shown

  measured(ms) {
    if (ms === null) return;
    this.ways.push(ms);
    if (this.ways.length > 31) this.ways.shift();
    this.numbers.way.textContent = `${[...this.ways].sort((a, b) => a - b)[this.ways.length >> 1].toFixed(0)} ms`;
  }

  number(view) {
    const { numbers } = this, twin = view.show === "twin";
    const both = [["dream", view.total], ["reality", view.rtotal]];
    const worlds = twin ? both : [both[Number(view.awake || view.show === "reality")]];
    numbers.return.replaceChildren(...worlds.map(([world, x]) => line("i", `of-${world}`, String(x))));
    numbers.age.textContent = `${(view.age / 15).toFixed(1)} s`;
    numbers.same.textContent = view.psnr === null ? "–" : `${view.same} steps`;
    numbers.same.style.color = view.div === null ? "" : view.div > 0.66 ? "var(--red-ink)" : view.div > 0.33 ? "var(--amber-ink)" : "";
    numbers.steps.textContent = view.steps;
    numbers.ms.textContent = `${view.ms.toFixed(0)} ms`;
    numbers.rate.textContent = `${view.rate.toFixed(1)}/s`;
    numbers.rate.style.color = view.slip ? "var(--amber-ink)" : "";
    numbers.rate.title = view.slip ? "the machine cannot hold 15 Hz for everybody; all slow down evenly" : "";
  }

  arrange() {
    const { show, pictures } = this.view;
    const shown = { dream: show !== "reality", reality: show !== "dream", screen: pictures.includes("screen")
      && this.wants.screen };
    const key = JSON.stringify([shown, innerWidth, innerHeight, this.panels.dream.canvas.width,
                                this.find(".pictures").clientWidth, this.find(".pictures").clientHeight]);
    if (key === this.arranged) return;
    this.arranged = key;
    for (const [name, on] of Object.entries(shown)) this.panels[name].figure.hidden = !on;
    const box = this.find(".pictures");
    fit([this.panels.dream, this.panels.reality], this.panels.screen, box.clientWidth, box.clientHeight, 24);
    const crowded = shown.screen && this.panels.screen.figure.hidden;
    if (crowded && !this.crowded) this.say("there is no room here for the emulator's full picture");
    this.crowded = crowded;
  }

  differ() {
    const over = this.find("canvas.over"), { dream, reality } = this.panels;
    const ramp = ["--muted", "--amber", "--red"].map((name) => colour(this.root, name));
    difference(dream, reality, over, ramp);
    over.hidden = false;
  }

  /** A word over the picture: what is waited for, and something that moves. */
  veil(words, { moves = false, word = "", act = null } = {}) {
    const veil = this.find(".veil"), button = veil.querySelector("button");
    veil.hidden = words === null;
    if (words === null) return;
    veil.querySelector("p").textContent = words;
    veil.querySelector(".spin").hidden = !moves;
    button.hidden = !act;
    button.textContent = word;
    button.onclick = act;
  }

  say(text) {
    const note = this.find(".note");
    if (text === "") { note.textContent = ""; return; }
    const words = text[0].toUpperCase() + text.slice(1);
    // whatever is put in is read aloud, also the same once more
    if (note.textContent !== words) note.textContent = words;
    clearTimeout(this.saying);
    this.saying = setTimeout(() => { note.textContent = ""; }, 4000);
  }

  /** A tool's word, and its picture where that changes with it. */
  word(name, word, icon = null) {
    for (const span of this.root.querySelectorAll(`[data-do=${name}] span`)) {
      if (span.textContent === word) continue;
      span.textContent = word;
      if (icon) span.parentElement.querySelector("path").setAttribute("d", ICONS[icon]);
    }
  }

  choose(name, value) {
    for (const button of this.root.querySelectorAll(`[data-choice=${name}] button`)) {
      const on = button.dataset.value === String(value);
      if ((button.getAttribute("aria-checked") === "true") !== on) button.setAttribute("aria-checked", on);
    }
  }

  hint() {
    const words = this.game.legend.map(([keys, what]) => `${keys} ${what}`).join("  ·  ");
    this.find(".hint").textContent = this.game.watching ? "You are watching." : `${words}  ·  ? for more`;
  }

  pads() {
    const touch = matchMedia("(pointer: coarse)").matches && !this.game.watching;
    this.find(".pads").hidden = !touch;
    this.find(".fire").hidden = !this.game.directions.includes("space");
    for (const name of ["up", "down", "left", "right"]) {
      this.find(".thumb").classList.toggle(`no-${name}`, !this.game.directions.includes(name));
    }
  }

  /** Saved moments of a training: the same game as it was dreamt earlier and later. */
  moments(names) {
    const slot = this.find(".moments");
    const here = names.findIndex(({ name }) => name === this.game.name);
    slot.hidden = names.length < 2 || here < 0; // a moment that was thinned out is beside none
    if (slot.hidden) return;
    slot.innerHTML = `<label>moment <input type="range" min="0" max="${names.length - 1}" value="${here}"
      aria-label="Saved moment of the training"><output></output></label>`;
    const [input, output] = [slot.querySelector("input"), slot.querySelector("output")];
    const say = () => { output.textContent = names[input.value].word; };
    input.addEventListener("input", say);
    input.addEventListener("change", () => this.open({ game: names[input.value].name, seed: this.dream.seed }));
    say();
  }

  // what the person does

  listen() {
    const act = (event) => {
      const button = event.target.closest?.("button");
      if (!button) return;
      const group = button.closest("[data-choice]");
      if (button.dataset.do) this.do(button.dataset.do);
      else if (group) this.pick(group.dataset.choice, button.dataset.value);
      // a click leaves the keyboard to the game; somebody who tabs keeps the focus
      if (event.detail > 0 && this.root.dataset.state === "play" && !this.overlay) this.focusPlay();
    };
    this.root.addEventListener("click", act);
    window.addEventListener("keydown", (event) => this.shortcut(event));
    window.addEventListener("dream-open", (event) => { showPlay(); this.leave(false); this.open(event.detail); });
    window.addEventListener("popstate", (event) => this.dream && !event.state?.dream && !isAddress() && this.leave());
    // another link in the same tab changes no more than what is behind the #
    window.addEventListener("hashchange", () => isAddress() && location.reload());
    // whoever closes the page gives the place to the next at once
    window.addEventListener("pagehide", () => this.link?.close());
    window.addEventListener("pageshow", (event) => { if (event.persisted && this.dream) this.open(this.dream); });
    let inView = true;
    this.unseen = false;
    const seen = () => { this.unseen = document.hidden || !inView; this.away(this.unseen); };
    document.addEventListener("visibilitychange", seen);
    new IntersectionObserver(([entry]) => {
      inView = entry.isIntersecting;
      seen();
      // other tabs train worlds, bring them in and throw them out
      if (inView && this.root.dataset.state === "gallery") this.gallery.load();
    }).observe(this);
    new ResizeObserver(() => this.view && this.arrange()).observe(this.find(".pictures"));
    for (const kind of ["pointerdown", "pointermove"]) {
      this.panels.dream.canvas.addEventListener(kind, (event) => this.paint(event));
    }
    this.keys.thumb(this.find(".thumb"), () => this.game?.directions ?? []);
    this.keys.button(this.find(".fire"), "space");
    const look = (now) => {
      this.keys.poll((name) => this.do(name));
      if (now - (this.painted ?? 0) > 66) {
        this.stroke();
        this.painted = now;
      }
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }

  /** Keys are for the game while it is seen, and nobody types or tabs elsewhere. */
  isListening(event) {
    if (this.root.dataset.state !== "play" || !this.game || this.overlay || !this.offsetParent) return false;
    const target = event?.composedPath?.()[0];
    if (!(target instanceof Element)) return true;
    if (target.matches("input:not([type=range]):not([type=checkbox]), select, textarea:not([readonly]), [contenteditable=true]")) return false;
    const tabbed = target.matches("button:focus-visible, input:focus-visible, .timeline:focus-visible");
    return !(tabbed && (event.key === " " || event.key.startsWith("Arrow")));
  }

  shortcut(event) {
    if (event.key === "Escape" && this.overlay) { this.close(); return; }
    if (event.key === "Escape" && this.asking) { this.asking = false; this.say(""); this.send("unfork"); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !this.isListening(event)) return;
    const name = { p: "pause", ".": "step", ",": "rewind", t: "view", h: "who", k: "moon", l: "resync", f: "fork",
                   r: "record", g: "difference", v: "denoise", n: "mind", "[": "slower", "]": "faster",
                   Backspace: "reset", "?": "more" }[named(event)];
    if (!name) return;
    event.preventDefault();
    this.do(name);
  }

  do(name) {
    if (this.game?.watching && !["leave", "more"].includes(name)) return;
    const view = this.view ?? {};
    const next = (list, now) => list[(list.indexOf(now) + 1) % list.length];
    const acts = {
      leave: () => this.leave(), pause: () => this.send("pause", { on: !view.paused }), step: () => this.send("step"),
      rewind: () => this.view && this.rewind(this.timeline.clamped(view.moment - 15), true),
      fork: () => { this.asking = this.send("fork") && !view.awake; },
      moon: () => this.send(view.awake ? "sleep" : "wake"), record: () => this.send("record", { on: view.tape === null }),
      more: () => this.drawer.toggle(), reset: () => this.drawer.reset(), denoise: () => this.send("denoise"),
      resync: () => this.send("resync"), link: () => this.send("link"),
      view: () => this.game?.reality && this.pick("show", next(VIEWS, view.show)),
      who: () => this.pick("who", next(WHO, view.who)), calm: () => this.drawer.calm(),
      watchlink: () => this.drawer.watchLink(), embed: () => this.drawer.embed(),
      unpaint: () => { this.stroke(); this.from = null; this.send("unpaint"); },
      difference: () => this.drawer.tick("difference"), mind: () => this.drawer.tick("mind", true),
      slower: () => this.drawer.faster(0.5), faster: () => this.drawer.faster(2),
    };
    acts[name]?.();
  }

  pick(name, value) {
    if (name === "who") this.send("who", { who: value });
    else if (name === "show") this.send("show", { view: value });
    else if (name === "order") this.drawer.turn({ order: Number(value) });
  }

  /** Colour on the dream, while that is wanted: strokes, a piece at a time. */
  paint(event) {
    if (!this.wants.paint || !event.buttons || !this.game || this.game.watching) return;
    event.preventDefault();
    const { x, y } = this.panels.dream.under(event), { width, height } = this.panels.dream.canvas;
    const outside = x < 0 || y < 0 || x >= width || y >= height;
    if (outside || event.type === "pointerdown" || this.path?.length === 60) this.stroke();
    if (outside || event.type === "pointerdown") this.from = null;
    const [lastX, lastY] = this.path?.at(-1) ?? this.from ?? [];
    if (!outside && (x !== lastX || y !== lastY)) (this.path ??= []).push([x, y]);
  }

  stroke() {
    const { path, from } = this;
    if (!path) return;
    this.send("paint", { path: from ? [from, ...path] : path, new: !from, radius: 1, rgb: this.drawer.ink() });
    this.from = path.at(-1);
    this.path = null;
  }

  rewind(moment, done) {
    this.send("rewind", { moment, done });
    if (done && !this.find(".timeline").matches(":focus-visible")) this.focusPlay();
  }

  /** Nobody looks: the dream waits. */
  away(hidden) {
    if (!this.game || this.game.watching) return;
    if (hidden !== this.hiddenNow) this.keys.releaseAll();
    if (hidden) {
      if (!this.hiddenNow) this.waits = !this.view?.paused;
      if (this.waits) this.send("pause", { on: true });
    } else if (this.waits) this.waits = !this.send("pause", { on: false });
    this.hiddenNow = hidden;
  }

  close() { this.overlay?.(); this.overlay = null; this.send("unfork"); this.focusPlay(); }

  focusPlay() { this.find(".play").focus({ preventScroll: true }); }
}

/** Whether what is behind the # leads into a dream. */
function isAddress() { return /^#(.*&)?(game|watch)=/.test(location.hash); }

/** In the shell the dream has a tab of its own. */
function showPlay() {
  const tabs = [...document.querySelectorAll("button[role=tab]")];
  tabs.find((tab) => tab.textContent.trim() === "Play")?.click();
}

customElements.define("dream-player", DreamPlayer);
export { DreamPlayer };
