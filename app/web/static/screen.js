// Pictures as they are: whole multiples of device pixels, nearest neighbour, nothing stretched.

export class Panel {
  constructor(figure) {
    this.figure = figure;
    this.canvas = figure.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  }

  draw(bitmap) {
    const { canvas } = this;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    this.context.drawImage(bitmap, 0, 0);
    this.drawn = true;
  }

  /** Device pixels a pixel. */
  scale(times) {
    const dots = window.devicePixelRatio || 1;
    this.canvas.style.width = `${this.canvas.width * times / dots}px`;
    this.canvas.style.height = `${this.canvas.height * times / dots}px`;
  }

  pixels() {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height).data;
  }

  /** Which pixel of the frame lies under the pointer. */
  under(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: Math.floor((event.clientX - box.left) / box.width * this.canvas.width),
      y: Math.floor((event.clientY - box.top) / box.height * this.canvas.height),
    };
  }
}

/** The largest whole multiple at which frames of one size fit beside (or, on narrow screens, below) each other, and with
 * them a picture of another size, at most doubled, that leaves them seven tenths, or half: away where there is no room. */
export function fit(panels, picture, width, height, gap) {
  const dots = window.devicePixelRatio || 1, room = 34;
  const shown = panels.filter((panel) => !panel.figure.hidden), n = shown.length;
  if (!n || width <= 0) return;
  const { width: wide, height: high } = shown[0].canvas, { width: across, height: up } = picture.canvas;
  const times = (stacked, width, height) => Math.floor(dots * (stacked
    ? Math.min(width / wide, (height - room * n - gap * (n - 1)) / n / high)
    : Math.min((width - gap * (n - 1)) / n / wide, (height - room) / high)));
  const largest = (ways) => ways.reduce((a, b) => (b.times > a.times ? b : a));
  let best = largest([false, true].map((stacked) => ({ stacked, size: 0, times: times(stacked, width, height) })));
  const most = picture.figure.hidden ? 0 : Math.round(2 * dots), alone = best.times;
  for (let i = 0; i < 2 * most && !best.size; i++) {
    const size = most - i % most, least = Math.max(1, (i < most ? 0.7 : 0.5) * alone);
    const w = across * size / dots, h = up * size / dots, higher = height - gap - room - h;
    const way = largest([
      { stacked: false, below: false, times: h + room > height ? 0 : times(false, width - gap - w, height) },
      { stacked: false, below: true, times: w > width ? 0 : times(false, width, higher) },
      { stacked: true, below: true, times: w > width ? 0 : times(true, width, higher) }]);
    if (way.times >= least) best = { ...way, size };
  }
  const { classList } = shown[0].figure.parentElement;
  classList.toggle("stacked", best.stacked);
  classList.toggle("below", best.below ?? false);
  for (const panel of shown) panel.scale(Math.max(1, best.times));
  picture.figure.hidden = !best.size;
  if (best.size) picture.scale(best.size);
}

/** Where two frames differ, as heat over the second one. */
export function difference(one, other, overlay, colours) {
  const { width, height } = one.canvas;
  if (width !== other.canvas.width || height !== other.canvas.height) return;
  overlay.width = width;
  overlay.height = height;
  const context = overlay.getContext("2d"), out = context.createImageData(width, height);
  const a = one.pixels(), b = other.pixels();
  for (let i = 0; i < a.length; i += 4) {
    const d = Math.max(Math.abs(a[i] - b[i]), Math.abs(a[i + 1] - b[i + 1]), Math.abs(a[i + 2] - b[i + 2])) / 255;
    if (d < 0.06) continue;
    const [red, green, blue] = heat(Math.min(1, d * 2), colours);
    out.data.set([red, green, blue, 110 + Math.min(1, d * 2) * 145], i);
  }
  context.putImageData(out, 0, 0);
}

/** 0 -> grey, 0.5 -> amber, 1 -> red, and what lies between. */
export function heat(x, [grey, amber, red]) {
  const t = Math.min(1, Math.max(0, x)) * 2, [low, high] = t <= 1 ? [grey, amber] : [amber, red];
  return low.map((c, i) => Math.round(c + (high[i] - c) * (t <= 1 ? t : t - 1)));
}

/** The colours of a custom property such as --dream, as numbers. */
export function colour(element, name) {
  const hex = getComputedStyle(element).getPropertyValue(name).trim().slice(1);
  return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) || 0);
}
