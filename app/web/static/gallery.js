// The games as cards: a poster at once, the looping dream on hover, in by a click.

import { ask, at } from "./link.js";

export class Gallery {
  constructor(list, open) {
    this.list = list;
    this.open = open;
    this.games = [];
  }

  async load() {
    try {
      const games = await ask("api/games"), key = JSON.stringify(games);
      if (key === this.shown) return;
      this.show(games);
      this.shown = key;
    } catch (error) {
      this.shown = null;
      this.list.innerHTML = "";
      this.list.append(line("p", "empty", `The games could not be fetched: ${error.message}. Reload the page to try again.`));
    }
  }

  show(games) {
    this.games = games;
    this.list.replaceChildren(...games.map((game) => this.card(game)));
    if (!games.length) {
      this.list.append(line("p", "empty", "No dream is installed yet. Train one in the Train tab, or bring one in under "
                                          + "Models."));
    }
  }

  card(game) {
    const card = document.createElement("button");
    card.className = "card";
    card.type = "button";
    card.dataset.game = game.name;
    const picture = document.createElement("img");
    picture.alt = "";
    picture.width = picture.height = 64;
    picture.src = at(game.poster);
    const foot = document.createElement("span");
    foot.className = "foot";
    const dot = line("i", "dot", "");
    if (game.level) dot.dataset.level = game.level;
    dot.title = game.level ? `how true the dream is: ${game.level}` : "how true the dream is was not measured yet";
    foot.append(line("b", "", game.title), dot, line("small", "", game.line));
    card.append(picture, foot);
    const still = matchMedia("(prefers-reduced-motion: reduce)");
    if (game.moving) {
      const move = (on) => () => { picture.src = at(on && !still.matches ? game.moving : game.poster); };
      for (const start of ["pointerenter", "focus"]) card.addEventListener(start, move(true));
      for (const end of ["pointerleave", "blur"]) card.addEventListener(end, move(false));
    }
    card.addEventListener("click", () => this.open(game.name));
    return card;
  }
}

export function line(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  return element;
}
