// Slices of 16-bit numbers on a canvas: window and level, before and after, difference, uncertainty, labels.

const HANDLE = 14; // CSS pixels around the slider's line
const STACKED = ["Before | after", "Before", "After", "Difference", "Uncertainty", "Occlusion"];
/** Modes that lay a map over an image, and which. */
export const MAPS = { Uncertainty: "uncertainty", Occlusion: "occlusion" };

/** An image as the server describes it: its numbers, and what they mean. */
export function image(about, content) {
  const numbers = new Uint16Array(content.slice().buffer);
  const [depth, height, width, channels] = about.shape;
  return { ...about, numbers, depth, height, width, channels, value: (n) => n * about.step + about.low };
}

/** One image of several of the same size. */
export function stacked(images) {
  const [first] = images;
  const numbers = new Uint16Array(images.length * first.numbers.length);
  const low = Math.min(...images.map((each) => each.low));
  const step = Math.max(...images.map((each) => each.step));
  images.forEach((each, k) => {
    const at = k * first.numbers.length;
    each.numbers.forEach((n, i) => { numbers[at + i] = Math.round((each.value(n) - low) / step); });
  });
  return { ...first, low, step, numbers, depth: images.length * first.depth, several: images.length > 1, value: (n) => n * step + low };
}

export class Viewer {
  /** changed() is called when slice, window, mode or what lies under the pointer has changed. */
  constructor(canvas, changed) {
    Object.assign(this, { canvas, changed, images: {}, number: 0, slice: 0, split: 0.5, strength: 0.6, mode: "After", under: "" });
    this.plane = document.createElement("canvas");
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { this.dragged = null; });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.scroll(Math.sign(event.deltaY));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /** Images by name: after, and where there are such before, uncertainty and occlusion. */
  show(images) {
    this.images = images;
    this.number += 1;
    const main = images.before ?? images.after;
    this.main = main;
    this.slice = images.occlusion ? strongest(images.occlusion) : Math.floor(main.depth / 2);
    this.labels = images.after.unit === "label" && images.before ? this.#colours(images.after) : null;
    this.most = Object.fromEntries(Object.values(MAPS).filter((name) => images[name]).map((name) => [name, quantile(images[name], 0.995)]));
    this.spread = this.modes().includes("Difference") ? this.#largest() : 0;
    this.first = (this.unit() === main.unit ? main : images.after).window;
    this.window = [...this.first];
    this.mode = this.modes()[0];
    this.split = 0.5;
    this.draw();
  }

  modes() {
    const { before, after } = this.images;
    if (!before) return ["After"];
    const alike = before.width === after.width && before.height === after.height && before.depth === after.depth;
    const can = { Difference: alike && before.unit === after.unit && !this.labels && before.channels === after.channels,
      ...Object.fromEntries(Object.entries(MAPS).map(([mode, name]) => [mode, Boolean(this.images[name])])) };
    return STACKED.filter((mode) => can[mode] ?? true);
  }

  set(changes) {
    Object.assign(this, changes);
    this.slice = Math.min(Math.max(0, this.slice), this.main.depth - 1);
    this.window[1] = Math.max(this.window[1], 1e-6);
    this.draw();
  }

  scroll(by) { if (this.main) this.set({ slice: this.slice + by }); }

  reset() { this.set({ window: [...this.first] }); }

  draw() {
    const { canvas } = this, ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (!this.main) return;
    const context = canvas.getContext("2d"), place = this.#place();
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    const paint = (name, from, to) => {
      if (to <= from) return;
      context.save();
      context.beginPath();
      context.rect(place.x + from * place.width, place.y, (to - from) * place.width, place.height);
      context.clip();
      this.#paint(name);
      context.drawImage(this.plane, place.x, place.y, place.width, place.height);
      context.restore();
    };
    if (this.mode === "Before | after") {
      paint("Before", 0, this.split);
      paint("After", this.split, 1);
      context.fillStyle = "#d9a441";
      context.fillRect(place.x + this.split * place.width - ratio, place.y, 2 * ratio, place.height);
      context.beginPath();
      context.arc(place.x + this.split * place.width, place.y + place.height * 0.94, 7 * ratio, 0, 2 * Math.PI);
      context.fill();
    } else paint(this.mode, 0, 1);
    canvas.setAttribute("aria-label", `${this.mode}, slice ${this.slice + 1} of ${this.main.depth}`);
    this.changed();
  }

  /** Where the image lies on the canvas, in its pixels, as wide and high as it is in mm. */
  #place() {
    const { canvas, main } = this;
    const wide = main.width * main.spacing[2], high = main.height * main.spacing[1];
    const scale = Math.min(canvas.width / wide, canvas.height / high);
    const [width, height] = [wide * scale, high * scale];
    return { x: (canvas.width - width) / 2, y: (canvas.height - height) / 2, width, height };
  }

  /** The slice of an image: a view of its numbers. */
  #numbers(of) {
    const size = of.height * of.width * of.channels, slice = Math.min(this.slice, of.depth - 1);
    return of.numbers.subarray(slice * size, (slice + 1) * size);
  }

  /** Draw the slice in this mode onto the plane, pixel for pixel. */
  #paint(mode) {
    const { before, after } = this.images;
    const of = this.shown(mode);
    Object.assign(this.plane, { width: of.width, height: of.height });
    const context = this.plane.getContext("2d"), made = context.createImageData(of.width, of.height);
    const pixels = made.data, numbers = this.#numbers(of), { channels } = of;
    const [centre, width] = of.unit === this.unit() ? this.window : of.window;
    const scale = (255 * of.step) / width, shift = (255 * (of.low - centre + width / 2)) / width;
    for (let i = 0, p = 0; p < pixels.length; p += 4, i += channels) {
      pixels[p] = numbers[i] * scale + shift; // the array clamps and rounds
      pixels[p + 1] = channels > 1 ? numbers[i + 1] * scale + shift : pixels[p];
      pixels[p + 2] = channels > 2 ? numbers[i + 2] * scale + shift : pixels[p];
      pixels[p + 3] = 255;
    }
    if (mode === "Difference") this.#difference(pixels, this.#numbers(before), this.#numbers(after));
    if (MAPS[mode]) this.#heat(pixels, MAPS[mode]);
    if (mode === "After" && this.labels) this.#overlay(pixels, this.#numbers(after));
    context.putImageData(made, 0, 0);
  }

  /** What became brighter in orange, what became darker in blue, over the image made faint. */
  #difference(pixels, from, to) {
    const { before, after } = this.images, { channels } = after;
    for (let i = 0, p = 0; p < pixels.length; p += 4, i += channels) {
      const d = Math.max(-1, Math.min(1, (after.value(to[i]) - before.value(from[i])) / this.spread)) * this.strength * 2;
      const strong = Math.min(1, Math.abs(d)), faint = pixels[p] * 0.35 * (1 - strong);
      pixels[p] = faint + (d > 0 ? 240 : 0) * strong;
      pixels[p + 1] = faint + 120 * strong;
      pixels[p + 2] = faint + (d < 0 ? 240 : 0) * strong;
    }
  }

  /** Which image a mode shows, or lays its colours over: what is made of labels, and what is hidden, lies over the first. */
  shown(mode) {
    const { before, after, occlusion } = this.images;
    const alike = occlusion && before && occlusion.width === before.width && occlusion.height === before.height;
    return mode === "Before" || (this.labels && mode !== "Difference") || (mode === "Occlusion" && alike) ? before : after;
  }

  #heat(pixels, name) {
    const map = this.images[name], numbers = this.#numbers(map), most = this.most[name];
    for (let i = 0, p = 0; p < pixels.length; p += 4, i += map.channels) {
      const t = Math.min(1, map.value(numbers[i]) / most), a = this.strength * Math.sqrt(t);
      pixels[p] = pixels[p] * (1 - a) + 255 * Math.min(1, 1.6 * t + 0.2) * a;
      pixels[p + 1] = pixels[p + 1] * (1 - a) + 220 * Math.max(0, 1.6 * t - 0.6) * a;
      pixels[p + 2] = pixels[p + 2] * (1 - a) + 60 * (1 - t) * a;
    }
  }

  #overlay(pixels, numbers) {
    const { after } = this.images;
    for (let i = 0, p = 0; p < pixels.length; p += 4, i += after.channels) {
      const colour = this.labels[Math.round(after.value(numbers[i]))];
      for (let c = 0; colour && c < 3; c++) pixels[p + c] += (colour[c] - pixels[p + c]) * this.strength;
    }
  }

  #colours(of) {
    const found = {};
    for (const [number, [, hex]] of Object.entries(of.labels ?? {})) {
      found[number] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    }
    return found;
  }

  /** Nearly the largest difference. */
  #largest() {
    const { before, after } = this.images, every = Math.max(1, Math.floor(after.numbers.length / 50000)), found = [];
    for (let i = 0; i < after.numbers.length; i += every) {
      found.push(Math.abs(after.value(after.numbers[i]) - before.value(before.numbers[i])));
    }
    return found.sort((a, b) => a - b)[Math.floor(found.length * 0.995)] || 1;
  }

  /** The unit that the window is in. */
  unit() {
    const { before, after } = this.images;
    return before && (after.unit === before.unit || this.labels) ? before.unit : after.unit;
  }

  #down(event) {
    this.canvas.focus({ preventScroll: true });
    if (!this.main) return;
    this.canvas.setPointerCapture(event.pointerId);
    const ratio = this.canvas.width / this.canvas.clientWidth, place = this.#place();
    const line = (place.x + this.split * place.width) / ratio;
    const near = this.mode === "Before | after" && Math.abs(event.offsetX - line) < HANDLE;
    this.dragged = { near, x: event.clientX, y: event.clientY, window: [...this.window] };
  }

  #move(event) {
    if (!this.main) return;
    const ratio = this.canvas.width / this.canvas.clientWidth, place = this.#place();
    const [u, v] = [(event.offsetX * ratio - place.x) / place.width, (event.offsetY * ratio - place.y) / place.height];
    this.under = this.#under(u, v);
    if (this.dragged?.near) this.set({ split: Math.max(0, Math.min(1, u)) });
    else if (this.dragged) {
      const [centre, width] = this.dragged.window, speed = Math.max(width, this.main.step) / 300;
      const [dx, dy] = [event.clientX - this.dragged.x, event.clientY - this.dragged.y];
      this.set({ window: [centre + dy * speed, width + dx * speed] });
    } else this.changed();
  }

  /** What lies at a place of the image, 0 to 1 from the left and the top. */
  #under(u, v) {
    if (!(u >= 0 && u < 1 && v >= 0 && v < 1)) return "";
    const said = [];
    for (const name of ["before", "after", ...Object.values(MAPS)]) {
      const of = this.images[name];
      if (!of) continue;
      const at = (Math.floor(v * of.height) * of.width + Math.floor(u * of.width)) * of.channels;
      const value = of.value(this.#numbers(of)[at]);
      const label = of.labels?.[Math.round(value)]?.[0];
      said.push(`${name} ${label ?? (of.unit === "label" ? "nothing" : `${+value.toPrecision(4)} ${of.unit === "arbitrary" ? "" : of.unit}`)}`);
    }
    return said.join(" · ");
  }

  /** Keys, those of another canvas that shows the same among them. */
  key(event) {
    if (!this.main || event.ctrlKey || event.metaKey || event.altKey) return;
    const [centre, width] = this.window, modes = this.modes();
    const does = {
      ArrowUp: () => this.scroll(-1), ArrowDown: () => this.scroll(1),
      PageUp: () => this.scroll(-10), PageDown: () => this.scroll(10),
      Home: () => this.set({ slice: 0 }), End: () => this.set({ slice: this.main.depth - 1 }),
      ArrowLeft: () => this.set({ split: Math.max(0, this.split - 0.02) }),
      ArrowRight: () => this.set({ split: Math.min(1, this.split + 0.02) }),
      "+": () => this.set({ window: [centre, width / 1.1] }), "-": () => this.set({ window: [centre, width * 1.1] }),
      "[": () => this.set({ window: [centre - width / 20, width] }),
      "]": () => this.set({ window: [centre + width / 20, width] }),
      r: () => this.reset(),
    }[event.key];
    const mode = modes[Number(event.key) - 1];
    if (!does && !mode) return;
    event.preventDefault();
    if (does) does(); else this.set({ mode });
  }
}

/** Of a map, where it is above its least: nothing lies around what was looked at. */
function quantile(of, share) {
  const every = Math.max(1, Math.floor(of.numbers.length / 500000)), found = [];
  for (let i = 0; i < of.numbers.length; i += every) if (of.numbers[i]) found.push(of.numbers[i]);
  return of.value(found.sort((a, b) => a - b)[Math.floor(found.length * share)]) || 1;
}

/** The slice of a map that has most of it. */
function strongest(of) {
  const size = of.height * of.width * of.channels, sums = Array(of.depth).fill(0);
  of.numbers.forEach((n, i) => { sums[Math.floor(i / size)] += n; });
  return sums.indexOf(Math.max(...sums));
}
