// The last minutes as a strip: rewards as ticks, ends as gaps, divergence as heat; drag to go back.

import { colour, heat } from "./screen.js";

const WINDOW = 20 * 15, STEP = 15;

export class Timeline {
  /** `go(moment, done)` is called while the strip is dragged, and once more with done when it is let go. */
  constructor(canvas, label, go) {
    this.canvas = canvas;
    this.label = label;
    this.go = go;
    this.clear();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.dragging = true;
      this.drag(event);
    });
    canvas.addEventListener("pointermove", (event) => this.dragging && this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        if (!this.dragging) return;
        this.dragging = false;
        this.label.textContent = "";
        if (this.wanted !== null) this.go(this.wanted, true);
      });
    }
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      this.go(this.clamped(this.now + by), true);
    });
  }

  clear() {
    this.marks = new Map();
    this.first = this.now = this.last = 0;
    this.wanted = null;
  }

  /** Marks are [moment, reward, end, divergence, real reward, real end, awake]; what comes after `last` never was. */
  add(marks, now, last) {
    for (const mark of marks) this.marks.set(mark[0], mark);
    for (let moment = last + 1; moment <= this.last; moment++) this.marks.delete(moment);
    this.now = now;
    this.last = last;
    const first = Math.max(this.first, this.last - 5 * 60 * 15);
    for (; this.first < first; this.first++) this.marks.delete(this.first);
  }

  replace(marks, now) {
    this.clear();
    this.first = marks.length ? marks[0][0] : now;
    this.last = marks.length ? marks[marks.length - 1][0] : now;
    for (const mark of marks) this.marks.set(mark[0], mark);
    this.now = now;
  }

  clamped(moment) { return Math.min(this.last, Math.max(this.first, Math.round(moment))); }

  get span() { return Math.max(WINDOW, this.last - this.first); }

  drag(event) {
    const box = this.canvas.getBoundingClientRect();
    const moment = this.clamped(this.last - this.span + (event.clientX - box.left) / box.width * this.span);
    if (moment === this.wanted) return;
    this.wanted = moment;
    const seconds = (this.last - moment) / 15;
    this.label.textContent = seconds < 0.05 ? "now" : `${seconds.toFixed(1)} s ago`;
    const now = performance.now();
    if (now - (this.asked ?? 0) > 120) {
      this.asked = now;
      this.go(moment, false);
    }
  }

  draw() {
    const { canvas } = this, dots = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * dots), height = Math.round(canvas.clientHeight * dots);
    if (!width) return;
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const seconds = (moment) => ((moment - this.first) / 15).toFixed(1);
    for (const [name, x] of [["min", "0"], ["max", seconds(this.last)], ["now", seconds(this.now)],
                             ["text", `${((this.last - this.now) / 15).toFixed(1)} s ago`]]) {
      canvas.setAttribute(`aria-value${name}`, x);
    }
    const c = canvas.getContext("2d"), style = (name) => `rgb(${colour(canvas, name)})`;
    const ramp = [colour(canvas, "--muted"), colour(canvas, "--amber"), colour(canvas, "--red")];
    const dream = style("--dream"), reality = style("--reality");
    c.clearRect(0, 0, width, height);
    c.fillStyle = style("--line");
    c.fillRect(0, height * 0.36, width, height * 0.28);
    const per = width / this.span, left = this.last - this.span;
    for (const [moment, reward, end, divergence, realReward, realEnd, awake] of this.marks.values()) {
      if (moment < left) continue;
      const x = (moment - left) * per, w = Math.max(1, per + 0.6);
      if (!end && !realEnd) {
        c.globalAlpha = moment > this.now ? 0.35 : 1;
        c.fillStyle = divergence === null ? (awake ? reality : dream) : `rgb(${heat(divergence, ramp)})`;
        c.fillRect(x, height * 0.36, w, height * 0.28);
      }
      c.globalAlpha = 1;
      const tick = Math.max(2 * dots, w);
      if (reward) { c.fillStyle = dream; c.fillRect(x, reward > 0 ? 0 : height * 0.16, tick, height * 0.2); }
      if (realReward) { c.fillStyle = reality; c.fillRect(x, realReward > 0 ? height * 0.64 : height * 0.8, tick,
                                                           height * 0.2); }
    }
    c.fillStyle = style("--text");
    c.fillRect(Math.min(width - 2 * dots, (this.now - left) * per), 0, 2 * dots, height);
  }
}
