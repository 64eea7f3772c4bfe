// The way to the server: events as JSON, pictures as packets, and patience when the connection is lost.

const GRACE = 60, HELLO = 1, SILENCE = 30000;
const DAYS = 1e9; // milliseconds: a page that is open for longer begins to count anew

export const base = new URL("..", import.meta.url);

/** The token of this page's address, for pages that live in other sites and have no cookie. */
export const token = new URLSearchParams(location.search).get("token");

/** The address of something on this server. */
export function at(path, query = {}) {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  if (token) url.searchParams.set("token", token);
  return url.href;
}

/** A seed that the server knows, of whatever stands in an address or a field. */
export const seedOf = (x) => Math.min(2 ** 24 - 1, Math.max(0, Math.round(Number(x)) || 0));

/** JSON from the server; an Error with its own words where it refuses. */
export async function ask(path, options = {}) {
  const answer = await fetch(at(path), options).catch(() => { throw new Error("the server cannot be reached"); });
  const text = await answer.text();
  if (!answer.ok) throw new Error(short(text) || `the server answered ${answer.status}`);
  return JSON.parse(text);
}

function short(text) {
  try { return JSON.parse(text).detail; } catch { return text.slice(0, 200); }
}

export class Link {
  /** `on` is told every event: on(name, fields, images). */
  constructor(on, first) {
    this.on = on;
    this.first = first;
    this.secret = null;
    this.closed = false;
    this.lostAt = null;
    this.connect();
  }

  connect() {
    const url = new URL(at("ws"));
    url.protocol = url.protocol.replace("http", "ws");
    const socket = this.socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    this.asked = performance.now();
    this.drawn = -1;
    socket.onopen = () => {
      this.asked = null;
      this.send("join", this.secret ? { resume: this.secret } : this.first);
    };
    socket.onmessage = (event) => { this.asked = null; this.take(event.data, socket); };
    socket.onclose = (event) => this.ended(event);
    this.pinging = setInterval(() => this.ping(), 2000);
  }

  /** Whether it was sent. */
  send(t, fields = {}) {
    if (this.socket.readyState !== HELLO) return false;
    this.socket.send(JSON.stringify({ t, ...fields }));
    return true;
  }

  /** A line may die without a word: it is given up when nothing comes for a while after something was asked. */
  ping() {
    const now = performance.now();
    if (this.asked !== null && now - this.asked > SILENCE) {
      this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
      this.socket.close();
      this.ended({ code: 1006 });
    } else if (this.send("ping", { n: Math.round(now) % DAYS })) this.asked ??= now;
  }

  async take(data, socket) {
    if (typeof data === "string") {
      const { t, ...fields } = JSON.parse(data);
      if (t === "opened") this.secret = fields.secret ?? null;
      if (t === "hello" || t === "opened") this.lostAt = null;
      if (t === "pong") this.on("ping", { ms: (performance.now() - fields.n) % DAYS });
      else this.on(t, fields);
      return;
    }
    const { kind, fields, images } = unpacked(data);
    const pictures = await Promise.all(images.map((png) => createImageBitmap(
      new Blob([png], { type: "image/png" }), { colorSpaceConversion: "none", premultiplyAlpha: "none" })));
    if (socket !== this.socket) return; // it was decoded while the line was lost and found: the numbers are others now
    if (kind === 0) {
      // decoding may overtake: what is older than what is seen is not drawn, but told to have come
      const late = fields.seq < this.drawn;
      if (!late) { this.drawn = fields.seq; this.on("view", fields, pictures); }
      this.send("got", { seq: fields.seq });
    } else {
      this.on("sheet", fields, pictures);
    }
  }

  ended(event) {
    clearInterval(this.pinging);
    if (this.closed) return;
    if (event.code >= 4000 || event.code === 1008) {
      this.closed = true;
      this.on("gone", { code: event.code, why: event.reason || "the server ended this dream" });
      return;
    }
    this.lostAt ??= performance.now();
    const away = (performance.now() - this.lostAt) / 1000;
    this.on("lost", { left: Math.max(0, Math.round(GRACE - away)), held: this.secret !== null && away < GRACE });
    if (away > GRACE) this.secret = null;
    this.retry = setTimeout(() => this.connect(), Math.min(4000, 250 + away * 150));
  }

  close() {
    this.closed = true;
    clearTimeout(this.retry);
    this.send("leave");
    this.socket.close(1000);
  }
}

export function unpacked(data) {
  const view = new DataView(data);
  const count = view.getUint8(2), size = view.getUint32(3, true);
  const fields = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 7, size)));
  const images = [];
  for (let i = 0, at = 7 + size; i < count; i++) {
    const length = view.getUint32(at, true);
    images.push(new Uint8Array(data, at + 4, length));
    at += 4 + length;
  }
  return { kind: view.getUint8(1), fields, images };
}
