// What lies over the picture for a moment: every future at once, and a frame as its noise is taken away.

import { line } from "./gallery.js";
import { button as word } from "./template.js";

/** Futures as small films side by side; a click goes on in one of them. */
export function fan(sheet, { actions, steps, width, height, seconds }, bitmap, choose, close) {
  const grid = document.createElement("div");
  grid.className = "futures";
  const films = actions.map((name, action) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.action = action;
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    button.append(canvas, line("span", "", word(name)));
    button.addEventListener("click", () => { stop(); choose(action); });
    grid.append(button);
    return canvas.getContext("2d", { alpha: false });
  });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let tick = still ? steps - 1 : 0;
  const show = () => {
    // the last picture of a future stands a little longer
    const frame = Math.min(tick, steps - 1);
    tick = tick >= steps + 5 ? 0 : tick + 1;
    films.forEach((film, action) => film.drawImage(bitmap, frame * width, action * height, width, height, 0, 0, width,
                                                    height));
  };
  const timer = still ? null : setInterval(show, 1000 * seconds / steps);
  const stop = () => { clearInterval(timer); sheet.hidden = true; sheet.replaceChildren(); };
  open(sheet, "What if", `Every action, held for ${seconds === 1 ? "a second" : `${seconds} seconds`}. Choose one to go on `
       + "there.", grid, () => { stop(); close(); });
  show();
  return stop;
}

/** One frame from noise to picture: the clean guess at every noise level. */
export function denoising(sheet, { sigmas, width, height }, bitmap, close) {
  const row = document.createElement("div");
  row.className = "futures levels";
  sigmas.forEach((sigma, i) => {
    const cell = document.createElement("figure");
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").drawImage(bitmap, i * width, 0, width, height, 0, 0, width, height);
    cell.append(canvas, line("figcaption", "", sigma === null ? "the frame" : `σ ${sigma < 0.1 ? sigma.toFixed(3) :
      sigma.toFixed(1)}`));
    row.append(cell);
  });
  const stop = () => { sheet.hidden = true; sheet.replaceChildren(); };
  open(sheet, "A frame appears", "What the network takes for the clean picture at each level of noise.", row,
       () => { stop(); close(); });
  return stop;
}

function open(sheet, title, words, content, close) {
  const head = document.createElement("header");
  const cross = line("button", "quiet", "×");
  cross.type = "button";
  cross.setAttribute("aria-label", "Close");
  cross.addEventListener("click", close);
  head.append(line("h3", "", title), cross);
  sheet.replaceChildren(head, line("p", "", words), content);
  sheet.hidden = false;
  sheet.setAttribute("aria-label", title);
  (content.querySelector("button") ?? cross).focus();
}
