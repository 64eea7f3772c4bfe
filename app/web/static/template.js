// The page of play, in words.

const icon = (path) => `<svg viewBox="0 0 20 20" aria-hidden="true"><path d="${path}"/></svg>`;

/** What an action is called. */
export const button = (name) => (name === "NOOP" ? "nothing" : name.toLowerCase());

export const ICONS = {
  back: "M12 4 6 10l6 6", pause: "M7 4v12M13 4v12", play: "M6 4l10 6-10 6z", step: "M5 4l7 6-7 6zM15 4v12",
  rewind: "M10 4 4 10l6 6M16 4l-6 6 6 6", fork: "M4 10h4l6-5M8 10l6 5M14 3v4h-4M14 17v-4h-4",
  record: "M10 5a5 5 0 1 0 0 10 5 5 0 0 0 0-10", more: "M4 6h12M4 10h12M4 14h12", moon: "M13 3a7 7 0 1 0 4 11 6 6 0 0 1-4-11",
  sun: "M10 6a4 4 0 1 0 0 8 4 4 0 0 0 0-8M10 1v2M10 17v2M1 10h2M17 10h2",
};

const tool = (name, word, key, extra = "", picture = name) =>
  `<button type="button" data-do="${name}" ${extra} title="${word} (${key})">${icon(ICONS[picture])}<span>${word}</span></button>`;

const choice = (name, label, options) => `
  <div class="choice" role="radiogroup" aria-label="${label}" data-choice="${name}">${options.map(([value, word]) =>
    `<button type="button" role="radio" aria-checked="false" data-value="${value}">${word}</button>`).join("")}</div>`;

const number = (name, word, size) =>
  `<span class="number ${name}"><small>${word}</small><b data-number="${name}" style="min-width:${size}ch">–</b></span>`;

const panel = (name, word, more = "") => `
  <figure class="${name}" ${name === "dream" ? "" : "hidden"}><figcaption>${word}</figcaption>
    <div class="glass"><canvas width="64" height="64" data-panel="${name}" aria-label="${word}"></canvas>${more}</div></figure>`;

export const TEMPLATE = `
<div class="root" data-state="gallery">
  <section class="gallery" aria-label="Games"><header><h2>Choose a dream</h2><p>Every frame is drawn by a network
    while you play.</p></header><div class="cards" aria-live="polite"></div></section>

  <section class="play" tabindex="-1" aria-label="The dream">
    <header>
      <button type="button" class="quiet" data-do="leave" title="All games">${icon(ICONS.back)}<span>Games</span></button>
      <h2 data-title></h2>
      <span class="moments" hidden></span>
      <span class="space"></span>
      ${choice("who", "Who plays", [["you", "you"], ["help", "helped"], ["agent", "agent"], ["random", "random"]])}
      ${choice("show", "What you see", [["dream", "dream"], ["twin", "twin"], ["reality", "reality"]])}
    </header>

    <div class="pictures">
      ${panel("dream", "dream")}
      ${panel("reality", "reality", '<canvas class="over" data-panel="difference" hidden></canvas>')}
      ${panel("screen", "the emulator's full picture")}
      <div class="veil" role="status" hidden><i class="spin"></i><p></p><button type="button" hidden></button></div>
    </div>

    <div class="line" aria-label="Numbers">
      ${number("return", "return", 4)}${number("age", "age", 6)}${number("same", "true for", 9)}
      ${number("steps", "denoising", 2)}${number("ms", "dreaming", 6)}${number("rate", "rate", 6)}
      ${number("way", "key to frame", 6)}
    </div>

    <div class="strip"><canvas class="timeline" tabindex="0" role="slider" aria-label="Rewind: drag, or use the arrow keys"
      title="drag to rewind"></canvas><output></output></div>

    <div class="tools">
      ${tool("pause", "Pause", "P")}${tool("step", "Step", ".")}${tool("rewind", "Back", ",")}
      ${tool("fork", "What if", "F")}${tool("moon", "Wake up", "K", "data-wake", "sun")}${tool("record", "Record", "R")}
      ${tool("more", "More", "?")}
    </div>
    <div class="words"><p class="hint"></p><p class="note" role="status"></p><p class="kept" role="status"></p></div>
    <div class="pads" hidden><div class="thumb" aria-hidden="true"><i class="u">▲</i><i class="d">▼</i><i
      class="l">◀</i><i class="r">▶</i></div><button type="button" class="fire"
      aria-label="fire">fire</button></div>
  </section>

  <aside class="drawer" aria-label="More" hidden></aside>
  <div class="sheet" role="dialog" hidden></div>
</div>`;

const slider = (name, word, min, max, step) => `
  <label class="slider"><span>${word}</span><output data-out="${name}"></output>
    <input type="range" name="${name}" min="${min}" max="${max}" step="${step}"></label>`;

export const DRAWER = `
  <header><h3>More</h3><button type="button" class="quiet" data-do="more" aria-label="Close">×</button></header>
  <section class="controls"><h4>Controls</h4><div data-slot="choices"></div><div data-slot="tools"></div></section>
  <section><h4>How the dream is drawn</h4>
    ${slider("steps", "denoising steps", 1, 10, 1)}
    <label class="tick"><input type="checkbox" name="auto"> as many as time allows</label>
    ${slider("churn", "noise put back", 0, 10, 0.5)}
    ${slider("temperature", "temperature", 0, 10, 0.1)}
    <div class="row"><span>solver</span>${choice("order", "Solver", [["1", "Euler"], ["2", "Heun"]])}</div>
    <div class="row"><button type="button" data-do="denoise">Watch a frame appear</button>
      <button type="button" data-do="calm">As it was</button></div></section>
  <section><h4>Time</h4>
    ${slider("speed", "speed", 0.25, 2, 0.25)}
    <div class="row"><button type="button" data-do="reset">New dream</button><label>start <input name="seed" type="number"
      min="0" max="16777215" step="1" inputmode="numeric"></label></div></section>
  <section data-needs="reality"><h4>Reality</h4>
    ${slider("resync", "fall asleep anew every", 0, 300, 15)}
    <div class="row"><button type="button" data-do="resync">Fall asleep from here</button></div>
    <label class="tick"><input type="checkbox" name="difference"> show where they differ</label>
    <label class="tick"><input type="checkbox" name="screen"> show the emulator's full picture</label></section>
  <section><h4>Paint into the dream</h4>
    <label class="tick"><input type="checkbox" name="paint"> paint on the picture <input type="color" name="ink"
      value="#ffd848" aria-label="Colour"></label>
    <div class="row"><button type="button" data-do="unpaint">Take the last stroke back</button></div></section>
  <section><h4>The agent's mind</h4>
    <label class="tick"><input type="checkbox" name="mind"> show what it thinks</label>
    <div class="mind" hidden></div></section>
  <section><h4>Share</h4>
    <div class="row"><button type="button" data-do="watchlink">Link to watch</button><button type="button"
      data-do="link">Link to this dream</button><button type="button" data-do="embed">Embed</button></div>
    <p class="shared" role="status"></p></section>
  <section class="keys"><h4>Keys</h4><dl></dl></section>`;

export const KEYS = [
  ["P", "pause, go on"], [".", "one step"], [",", "back one second"], ["T", "dream, twin, reality"],
  ["H", "who plays"], ["K", "wake up, fall asleep"], ["L", "dream from reality's frames"], ["F", "all futures from here"],
  ["R", "record a tape"], ["G", "show the difference"], ["V", "watch a frame appear"], ["N", "what the agent thinks"],
  ["[ ]", "slower, faster"], ["Backspace", "begin anew"], ["?", "more, less"],
];
