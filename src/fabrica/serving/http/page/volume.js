// Volumes from all sides, by niivue (niivue.js, BSD-2: niivue.LICENSE.txt), which is fetched when the first one is asked for.

import { MAPS } from "./viewer.js";

const FAINT = 0.35; // of an overlay's strength, what its rendering leaves of the image
const OPTIONS = {
  backColor: [0, 0, 0, 1], crosshairColor: [0.85, 0.64, 0.25, 0.8], fontColor: [0.49, 0.53, 0.58, 1], logLevel: "error",
  isRadiologicalConvention: true, dragAndDropEnabled: false, loadingText: "", isColorbar: false, show3Dcrosshair: true,
  clipPlaneColor: [0, 0, 0, 0], viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", multiplanarShowRender: 1, sagittalNoseLeft: true,
};

/** Whether this browser can draw volumes at all; the slices are always there. */
export const possible = () => Boolean(document.createElement("canvas").getContext("webgl2"));

export class Volume {
  /** moved() is called with the slice that the crosshair is in, counted from the feet. */
  constructor(canvas, moved) {
    Object.assign(this, { canvas, moved, drawn: null, shown: "", last: Promise.resolve() });
  }

  /** What the viewer shows, in this mode: the image, and over it what the mode adds. One after another. */
  show(viewer) {
    const next = this.last.then(() => this.#show(viewer));
    this.last = next.catch(() => null);
    return next;
  }

  async #show(viewer) {
    this.drawn ??= await opened(this.canvas, (at) => this.#crossed(at));
    const { images, mode, labels, main } = viewer;
    this.viewer = viewer;
    const wanted = `${viewer.number} ${mode}`, of = mode === "Difference" ? images.before : viewer.shown(mode);
    if (this.shown !== wanted) {
      const layers = [await volume("image", of, { colormap: "gray" })];
      if (mode === "Difference") layers.push(await difference(images, viewer.spread));
      const map = MAPS[mode], most = viewer.most[map];
      if (map) layers.push(await volume(map, images[map], { colormap: "warm", cal_min: most / 50, cal_max: most }));
      if (labels && mode === "After") layers.push(await volume("labels", images.after, {}));
      for (const each of [...this.drawn.volumes]) this.drawn.removeVolume(each);
      for (const each of layers) this.drawn.addVolume(each);
      if (labels && mode === "After") this.#colour(layers[1], images.after.labels);
      this.shown = wanted;
    }
    const [image, ...over] = this.drawn.volumes;
    if (of.unit === viewer.unit() || !images.before) [image.cal_min, image.cal_max] = span(viewer.window);
    over.forEach((each, k) => this.drawn.setOpacity(k + 1, viewer.strength));
    this.drawn.opts.renderOverlayBlend = 1 - FAINT * viewer.strength;
    const place = this.drawn.scene.crosshairPos;
    if (Math.floor(place[2] * main.depth) !== viewer.slice) place[2] = (viewer.slice + 0.5) / main.depth;
    this.drawn.updateGLVolume();
    this.canvas.dataset.shown = mode;
  }

  #crossed(at) {
    const depth = this.viewer?.main.depth ?? 1;
    this.moved(Math.min(depth - 1, Math.max(0, Math.floor(at.frac[2] * depth))));
  }

  /** Labels in the colours that the slices have. */
  #colour(layer, labels) {
    const numbers = Object.keys(labels).map(Number), table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
    for (const number of numbers) {
      const [name, hex] = labels[number];
      ["R", "G", "B"].forEach((channel, k) => table[channel].push(parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16)));
      table.A.push(255);
      table.I.push(number);
      table.labels.push(name);
    }
    layer.setColormapLabel(table);
  }
}

async function opened(canvas, crossed) {
  if (!globalThis.niivue) {
    await new Promise((ok, no) => {
      const script = Object.assign(document.createElement("script"), { src: "/page/niivue.js", onload: ok });
      script.onerror = () => no(new Error("volumes cannot be shown: niivue.js did not come"));
      document.head.append(script);
    });
  }
  const made = new globalThis.niivue.Niivue(OPTIONS);
  made.onLocationChange = crossed;
  await made.attachToCanvas(canvas);
  return made;
}

const span = ([centre, width]) => [centre - width / 2, centre + width / 2];

/** An image of the page as niivue takes it: its numbers as NIfTI, in memory. Of colours, the first. */
async function volume(name, of, choices) {
  const numbers = of.channels === 1 ? of.numbers : of.numbers.filter((_, i) => i % of.channels === 0);
  const [low, high] = choices.cal_max === undefined ? span(of.window) : [choices.cal_min, choices.cal_max];
  const file = new File([nifti({ ...of, numbers })], `${name}.nii`);
  return globalThis.niivue.NVImage.loadFromFile({ file, name: `${name}.nii`, ...choices, cal_min: low, cal_max: high });
}

/** What became brighter in warm colours, what became darker in cool ones. */
function difference({ before, after }, spread) {
  const levels = new Uint16Array(after.numbers.length / after.channels);
  for (let i = 0; i < levels.length; i++) {
    const k = i * after.channels, d = (after.value(after.numbers[k]) - before.value(before.numbers[k])) / spread;
    levels[i] = Math.round((Math.max(-1, Math.min(1, d)) + 1) * 32767);
  }
  const of = { ...after, channels: 1, numbers: levels, step: 1 / 32767, low: -1 };
  return volume("difference", of, { colormap: "warm", colormapNegative: "winter", cal_min: 0.1, cal_max: 1 });
}

/** NIfTI-1. Slices run from feet to head, rows to the back, columns to the patient's left. */
export function nifti({ width, height, depth, spacing, step, low, numbers }) {
  const view = new DataView(new ArrayBuffer(352)), [z, y, x] = spacing;
  view.setInt32(0, 348, true);
  [3, width, height, depth, 1, 1, 1, 1].forEach((n, k) => view.setInt16(40 + 2 * k, n, true));
  view.setInt16(70, 512, true); // uint16
  view.setInt16(72, 16, true);
  [1, x, y, z].forEach((n, k) => view.setFloat32(76 + 4 * k, n, true));
  view.setFloat32(108, 352, true);
  view.setFloat32(112, step, true);
  view.setFloat32(116, low, true);
  view.setUint8(123, 2); // mm
  view.setInt16(254, 1, true); // the affine below: RAS
  const affine = [[-x, 0, 0, (x * width) / 2], [0, -y, 0, (y * height) / 2], [0, 0, z, (-z * depth) / 2]];
  affine.flat().forEach((n, k) => view.setFloat32(280 + 4 * k, n, true));
  view.setUint32(344, 0x6e2b3100); // "n+1"
  return new Blob([view.buffer, numbers]);
}
