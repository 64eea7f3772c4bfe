// Keys from a keyboard, thumbs and a gamepad: all become the same few names, pressed and released.

const NAMES = {
  ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right", " ": "space",
  w: "w", a: "a", s: "s", d: "d",
};
const DIRECTIONS = ["up", "down", "left", "right"];

/** A key's name; where a layout has other letters than a to z, that of the place where they are. */
export function named({ key, code }) {
  if (/^[^\x00-\x7f]$/.test(key) && code.startsWith("Key")) return code.slice(3).toLowerCase();
  return key.length === 1 ? key.toLowerCase() : key;
}

export class Keys {
  /** `send(t, fields)` is told presses and releases; `wanted()` says whether keys are for the game now. */
  constructor(send, wanted) {
    this.send = send;
    this.wanted = wanted;
    this.held = new Map();
    this.sent = new Map();
    this.count = 0;
    this.pad = new Set();
    window.addEventListener("keydown", this.down = (event) => this.onDown(event));
    window.addEventListener("keyup", this.up = (event) => this.release("key:" + event.code));
    window.addEventListener("blur", this.blur = () => this.releaseAll());
  }

  stop() {
    window.removeEventListener("keydown", this.down);
    window.removeEventListener("keyup", this.up);
    window.removeEventListener("blur", this.blur);
  }

  onDown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.wanted(event)) return;
    const key = named(event), name = NAMES[key] ?? (/^\d$/.test(key) ? key : null);
    if (name === null) return;
    event.preventDefault();
    if (!event.repeat) this.press("key:" + event.code, name);
  }

  /** A source (a key, a thumb, a pad) holds a name down. */
  press(source, name) {
    if (this.held.get(source) === name) return;
    this.release(source);
    const others = [...this.held.values()].includes(name);
    this.held.set(source, name);
    if (others) return;
    this.sent.set(++this.count, performance.now());
    if (this.sent.size > 64) this.sent.delete(this.sent.keys().next().value);
    this.send("press", { key: name, n: this.count });
  }

  release(source) {
    const name = this.held.get(source);
    if (name === undefined) return;
    this.held.delete(source);
    if (![...this.held.values()].includes(name)) this.send("release", { key: name });
  }

  releaseAll() {
    if (this.held.size) this.send("blur");
    this.held.clear();
  }

  /** Waits for no picture of the presses until now. */
  forget() { this.sent.clear(); }

  /** Milliseconds from the press number n until now, when its picture stands on the screen. */
  way(n) {
    const pressed = this.sent.get(n);
    this.sent.delete(n);
    return pressed === undefined ? null : performance.now() - pressed;
  }

  /** Looks at the gamepads; called once a picture. `extra(name)` is told other buttons. */
  poll(extra) {
    if (!this.wanted()) return;
    const pads = navigator.getGamepads ? [...navigator.getGamepads()].filter(Boolean) : [];
    if (!pads.length && !this.pad.size) return;
    const now = new Set();
    for (const { axes, buttons } of pads) {
      const [x = 0, y = 0] = axes, on = (i) => buttons[i]?.pressed;
      if (y < -0.5 || on(12)) now.add("up");
      if (y > 0.5 || on(13)) now.add("down");
      if (x < -0.5 || on(14)) now.add("left");
      if (x > 0.5 || on(15)) now.add("right");
      if (on(0) || on(1)) now.add("space");
      if (on(9)) now.add("pause");
      if (on(3)) now.add("view");
    }
    for (const name of now) {
      if (this.pad.has(name)) continue;
      if (name === "pause" || name === "view") extra(name); else this.press("pad:" + name, name);
    }
    for (const name of this.pad) if (!now.has(name)) this.release("pad:" + name);
    this.pad = now;
  }

  /** A round pad for the left thumb: where it is touched says where to go, also to two sides at once. */
  thumb(element, known) {
    const hold = (event) => {
      const box = element.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * 2 - 1, y = (event.clientY - box.top) / box.height * 2 - 1;
      const far = Math.hypot(x, y) > 0.22, sideways = Math.abs(x), upright = Math.abs(y);
      const on = {
        up: far && y < 0 && upright > sideways * 0.45, down: far && y > 0 && upright > sideways * 0.45,
        left: far && x < 0 && sideways > upright * 0.45, right: far && x > 0 && sideways > upright * 0.45,
      };
      for (const name of DIRECTIONS) {
        const pressed = on[name] && known().includes(name);
        element.classList.toggle(name, pressed);
        if (pressed) this.press("thumb:" + name, name); else this.release("thumb:" + name);
      }
    };
    const let_go = () => {
      for (const name of DIRECTIONS) { element.classList.remove(name); this.release("thumb:" + name); }
    };
    element.addEventListener("pointerdown", (event) => { element.setPointerCapture(event.pointerId); hold(event); });
    element.addEventListener("pointermove", (event) => { if (event.buttons) hold(event); });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) element.addEventListener(end, let_go);
  }

  /** A button that is a key as long as it is touched. */
  button(element, name) {
    element.addEventListener("pointerdown", (event) => {
      element.setPointerCapture(event.pointerId);
      element.classList.add("on");
      this.press("button:" + name, name);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      element.addEventListener(end, () => { element.classList.remove("on"); this.release("button:" + name); });
    }
  }
}
