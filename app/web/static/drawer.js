// Everything that is quiet until wanted: knobs, time, reality, the agent's mind, links, keys.

import { line } from "./gallery.js";
import { at, seedOf } from "./link.js";
import { fileOf } from "./tapes.js";
import { button, DRAWER, KEYS } from "./template.js";

/** Phones, upright and on their side. */
const SMALL = "(max-width: 640px), (max-height: 500px) and (pointer: coarse)";

export class Drawer {
  constructor(player) {
    this.player = player;
    this.element = player.find(".drawer");
    this.element.innerHTML = DRAWER;
    this.find = (selector) => this.element.querySelector(selector);
    this.inputs = Object.fromEntries([...this.element.querySelectorAll("input")].map((input) => [input.name, input]));
    this.element.addEventListener("input", (event) => this.say(event.target));
    this.element.addEventListener("change", (event) => this.change(event.target));
    this.inputs.seed.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target.value !== "") this.dreamFrom(seedOf(event.target.value));
    });
    this.find(".keys dl").replaceChildren(...KEYS.flatMap(([key, what]) => [line("dt", "", key), line("dd", "", what)]));
    // on a phone what stands above and below the picture lives here
    const narrow = matchMedia(SMALL);
    const move = () => {
      const [choices, tools] = [this.find("[data-slot=choices]"), this.find("[data-slot=tools]")];
      const header = player.find(".play > header"), bar = player.find(".play > .tools");
      for (const group of player.root.querySelectorAll("[data-choice=who], [data-choice=show]")) {
        (narrow.matches ? choices : header).append(group);
      }
      for (const name of ["step", "rewind", "fork", "moon"]) {
        const button = player.root.querySelector(`button[data-do=${name}]`);
        if (narrow.matches) tools.append(button); else bar.insertBefore(button, bar.querySelector("[data-do=record]"));
      }
    };
    narrow.addEventListener("change", move);
    move();
  }

  toggle(open = this.element.hidden) {
    this.element.hidden = !open;
    this.player.root.classList.toggle("open", open);
    this.player.send("mind", { on: open && this.inputs.mind.checked });
  }

  opened(game) {
    this.game = game;
    this.turned(game.knobs);
    this.inputs.speed.value = game.speed;
    this.inputs.seed.value = game.seed;
    this.inputs.resync.value = game.resync;
    for (const input of [this.inputs.speed, this.inputs.resync]) this.say(input);
    for (const section of this.element.querySelectorAll("[data-needs=reality]")) section.hidden = !game.reality;
    this.find(".mind").replaceChildren(...game.actions.map((name) => {
      const row = line("div", "thought", "");
      row.append(line("span", "", button(name)), line("i", "", ""));
      row.lastChild.style.width = 0;
      return row;
    }), line("p", "value", ""));
    if (this.inputs.mind.checked) this.player.send("mind", { on: true });
    if (this.inputs.screen.checked) this.player.send("screen", { on: true });
  }

  /** How the dream is drawn, as the server knows it. */
  turned({ steps, churn, temperature, order }) {
    this.inputs.steps.value = steps === "auto" ? this.game.most : steps;
    this.inputs.auto.checked = steps === "auto";
    this.inputs.churn.value = churn;
    this.inputs.temperature.value = temperature;
    this.player.choose("order", order);
    for (const input of [this.inputs.steps, this.inputs.churn, this.inputs.temperature]) this.say(input);
  }

  seen(view) {
    if (view.p === null || view.value === null || this.find(".mind").hidden) return;
    [...this.element.querySelectorAll(".thought i")].forEach((bar, i) => {
      bar.style.width = `${100 * view.p[i]}%`;
      bar.parentElement.classList.toggle("chosen", i === view.action);
    });
    this.find(".mind .value").textContent = `expects ${view.value.toFixed(2)} from here`;
  }

  /** The word beside a slider. */
  say(input) {
    const words = {
      steps: (x) => (this.inputs.auto.checked ? "auto" : x), churn: (x) => Number(x).toFixed(1),
      temperature: (x) => Number(x).toFixed(2), speed: (x) => `${x} ×`,
      resync: (x) => (x === "0" ? "never" : `${(x / 15).toFixed(0)} s`),
    };
    const out = this.element.querySelector(`[data-out=${input.name}]`);
    if (out && words[input.name]) out.textContent = words[input.name](input.value);
  }

  change(input) {
    const { name, checked } = input, value = Number(input.value), { player } = this;
    if (name === "steps") { this.inputs.auto.checked = false; this.turn({ steps: value }); this.say(input); }
    else if (name === "auto") { this.turn({ steps: checked ? "auto" : Number(this.inputs.steps.value) });
      this.say(this.inputs.steps); }
    else if (name === "churn" || name === "temperature") this.turn({ [name]: value });
    else if (name === "speed") player.send("speed", { x: value });
    else if (name === "resync") player.send("resync_every", { steps: value });
    else if (name === "mind") { this.find(".mind").hidden = !checked; player.send("mind", { on: checked }); }
    else if (name === "difference") {
      player.wants.difference = checked;
      if (!checked) player.find(".over").hidden = true;
      else if (player.view && player.game.reality && !player.view.awake && player.view.show !== "twin") {
        player.pick("show", "twin");
      }
    }
    else if (name === "paint") { player.wants.paint = checked; player.root.classList.toggle("painting", checked);
      if (checked) player.send("pause", { on: true }); }
    else if (name === "screen") { player.wants.screen = checked; player.send("screen", { on: checked }); }
    // a click leaves the keyboard to the game; somebody who tabs keeps the focus
    if (input.type !== "number" && !input.matches(":focus-visible")) player.focusPlay();
  }

  /** A tick box turned by a key. */
  tick(name, open = false) {
    const input = this.inputs[name];
    input.checked = !input.checked;
    if (open && input.checked) this.toggle(true);
    this.change(input);
  }

  faster(times) {
    const { speed } = this.inputs;
    speed.value = Math.min(Number(speed.max), Math.max(Number(speed.min), Number(speed.value) * times));
    this.say(speed);
    this.change(speed);
  }

  ink() {
    return [1, 3, 5].map((i) => parseInt(this.inputs.ink.value.slice(i, i + 2), 16));
  }

  turn(knobs) {
    this.player.send("knobs", knobs);
    if (knobs.order) this.player.choose("order", knobs.order);
  }

  calm() {
    const { steps, churn, temperature, order } = this.game.own;
    this.turn({ steps, churn, temperature, order });
    this.turned(this.game.own);
  }

  reset() {
    const field = this.inputs.seed, typed = seedOf(field.value);
    this.dreamFrom(typed === this.game.seed || field.value === "" ? Math.floor(Math.random() * 2 ** 24) : typed);
  }

  dreamFrom(seed) {
    this.game.seed = this.inputs.seed.value = seed;
    this.player.dream = { game: this.game.name, seed };
    this.player.address();
    this.player.send("reset", { seed });
    this.player.focusPlay();
  }

  watchLink() {
    this.share(this.player.passOn({}, `watch=${this.game.watch}`), `Whoever opens this link watches you.${this.near()}`);
  }

  embed() {
    const url = this.player.passOn({ embed: 1, game: this.game.name });
    this.share(`<iframe src="${url}" width="480" height="600" style="border:0" allow="gamepad; fullscreen"></iframe>`,
               `Put this into a page of yours.${this.near()}`);
  }

  /** What an address of this machine alone is worth. */
  near() {
    return /^(localhost|127\.|\[::1\])/.test(location.hostname) ?
      " Only this machine reaches it: for others, begin the server with --share or --host." : "";
  }

  async share(text, words) {
    const slot = this.find(".shared"), field = line("textarea", "", text);
    field.readOnly = true;
    field.rows = 3;
    slot.replaceChildren(line("span", "", words), ...(text ? [field] : []));
    if (this.element.hidden) this.toggle(true);
    slot.scrollIntoView({ block: "nearest" });
    if (!text) return;
    field.select();
    try {
      await navigator.clipboard.writeText(text);
      slot.firstChild.textContent = `${words} Copied.`;
      this.player.focusPlay();
    } catch { /* without a secure origin there is no clipboard: the field is selected to be copied by hand */ }
  }

  recorded(tape, note) {
    const link = (word, ending) => {
      const a = line("a", "", word);
      a.href = at(`api/tapes/${tape.id}.${ending}`);
      a.download = fileOf(tape, ending);
      return a;
    };
    note.replaceChildren(line("span", "", `${tape.seconds.toFixed(1)} s kept. `), link("MP4", "mp4"), " ",
                         ...(tape.has_loop ? [link("GIF", "gif"), " "] : []), link("tape", "tape"));
  }
}
