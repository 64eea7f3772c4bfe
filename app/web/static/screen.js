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

/** The largest whole multiple at which the panels fit beside (or, on narrow screens, below) each other. */
export function fit(panels, width, height, gap) {
  const dots = window.devicePixelRatio || 1;
  const shown = panels.filter((panel) => !panel.figure.hidden);
  if (!shown.length || width <= 0) return;
  const wide = Math.max(...shown.map((p) => p.canvas.width)), high = Math.max(...shown.map((p) => p.canvas.height));
  const n = shown.length, room = 34;
  const beside = Math.min((width - gap * (n - 1)) / n / wide, (height - room) / high);
  const below = Math.min(width / wide, (height - room * n - gap * (n - 1)) / n / high);
  const stacked = below > beside;
  const times = Math.max(1, Math.floor((stacked ? below : beside) * dots));
  shown[0].figure.parentElement.classList.toggle("stacked", stacked);
  for (const panel of shown) panel.scale(times);
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
