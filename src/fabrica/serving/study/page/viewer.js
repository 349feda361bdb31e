// Images side by side, looked at together: zoom, place, slice and window are the same for all of them.
export class Viewer {
  // about: bits, colours of the study's images. changed(): called after each change of the view. marked(mark).
  constructor(home, about, changed, marked) {
    Object.assign(this, { home, about, changed, marked, panes: [], marks: [], boxes: [], tool: "", adjust: true });
    this.top = 2 ** about.bits - 1;
    this.reset();
    this.pointers = new Map();
    new ResizeObserver(() => this.draw()).observe(home);
  }

  reset() {
    Object.assign(this, { zoom: 1, x: 0, y: 0, slice: 0 });
    this.resetWindow();
  }

  resetWindow() {
    Object.assign(this, { centre: 0.5, width: 1 });
  }

  // images: {shape, aspect, data (ArrayBuffer)}; labels: what a screen reader says of each.
  show(images, labels) {
    this.home.replaceChildren();
    this.marks = [];
    this.boxes = [];
    this.corner = null;
    this.reset();
    this.panes = images.map(({ shape, aspect, data }, k) => {
      const [depth, rows, columns] = shape, count = depth * rows * columns * this.about.colours;
      const canvas = document.createElement("canvas"), source = document.createElement("canvas");
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", labels[k]);
      Object.assign(source, { width: columns, height: rows });
      this.home.append(canvas);
      const values = this.about.bits > 8 ? new Uint16Array(data, 0, count) : new Uint8Array(data, 0, count);
      const pane = { canvas, source, values, depth, rows, columns, aspect };
      this.listen(pane);
      return pane;
    });
    this.depth = Math.max(...images.map((each) => each.shape[0]));
    this.slice = Math.floor((this.depth - 1) / 2);
    const [, rows, columns] = images[0].shape;
    this.cursor = [columns / 2, rows / 2];
    this.draw();
  }

  clear() {
    this.panes = [];
    this.home.replaceChildren();
  }

  table() {
    const low = (this.centre - this.width / 2) * this.top, step = 255 / Math.max(this.width * this.top, 1e-9);
    return Uint8ClampedArray.from({ length: this.top + 1 }, (_, v) => (v - low) * step);
  }

  draw() {
    if (!this.panes.length) return;
    const table = this.table();
    for (const pane of this.panes) this.drawOne(pane, table);
    this.changed();
  }

  drawOne(pane, table) {
    const { canvas, source, values, rows, columns, depth } = pane, colours = this.about.colours;
    const key = [this.slice, this.centre, this.width].join();
    if (pane.key !== key) {
      const picture = new ImageData(columns, rows), out = picture.data;
      let from = Math.min(this.slice, depth - 1) * rows * columns * colours;
      for (let to = 0; to < out.length; to += 4, from += colours)
        for (let c = 0; c < 4; c++) out[to + c] = c === 3 ? 255 : table[values[from + (colours === 3 ? c : 0)]];
      source.getContext("2d").putImageData(picture, 0, 0);
      pane.key = key;
    }
    const scale = window.devicePixelRatio || 1, { width, height } = canvas.getBoundingClientRect();
    if (!width || !height) return;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const fit = Math.min(canvas.width / columns, canvas.height / (rows * pane.aspect));
    const sx = fit * this.zoom, sy = sx * pane.aspect;
    pane.place = { sx, sy, scale, left: canvas.width / 2 - (0.5 + this.x) * columns * sx, top: canvas.height / 2 - (0.5 + this.y) * rows * sy };
    const paint = canvas.getContext("2d"), { left, top } = pane.place;
    paint.imageSmoothingEnabled = sx < 4;
    paint.imageSmoothingQuality = "high";
    paint.drawImage(source, left, top, columns * sx, rows * sy);
    paint.lineWidth = 2 * scale;
    const at = (x, y) => [left + x * sx, top + y * sy];
    const box = (l, t, r, b) => paint.strokeRect(...at(l, t), (r - l) * sx, (b - t) * sy);
    paint.strokeStyle = "#5fd38d";
    for (const [z, ...corners] of this.boxes) if (z === this.slice) box(...corners);
    paint.strokeStyle = "#ffb000";
    for (const [z, ...rest] of this.marks) {
      if (z !== this.slice) continue;
      if (rest.length === 4) box(...rest);
      else cross(paint, ...at(...rest), 9 * scale);
    }
    if (this.drawn) box(...this.drawn);
    if (this.tool && document.activeElement === canvas) {
      paint.strokeStyle = "#6ec6ff";
      paint.lineWidth = scale;
      cross(paint, ...at(...this.cursor), 14 * scale);
      if (this.corner) box(...ordered(this.corner, this.cursor));
    }
  }

  // Pixel of the image under a place of the screen.
  pixel(pane, event) {
    const { left, top } = pane.canvas.getBoundingClientRect(), { sx, sy, scale } = pane.place;
    const limit = (v, most) => Math.min(Math.max(v, 0), most);
    return [
      limit(((event.clientX - left) * scale - pane.place.left) / sx, pane.columns),
      limit(((event.clientY - top) * scale - pane.place.top) / sy, pane.rows),
    ];
  }

  listen(pane) {
    const { canvas } = pane, held = this.pointers;
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      held.set(event.pointerId, event);
      const windowing = this.adjust && (event.shiftKey || event.button === 2);
      this.began = { at: this.pixel(pane, event), event, moved: false, windowing };
      if (held.size > 1) this.began.moved = true;
    };
    canvas.onpointermove = (event) => {
      const before = held.get(event.pointerId);
      if (!before || !this.began) return;
      const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
      const far = Math.hypot(event.clientX - this.began.event.clientX, event.clientY - this.began.event.clientY);
      if (far < 5 && !this.began.moved) return;
      this.began.moved = true;
      if (held.size === 2) {
        const [other] = [...held].filter(([id]) => id !== event.pointerId).map(([, each]) => each);
        const apart = (each) => Math.hypot(each.clientX - other.clientX, each.clientY - other.clientY);
        this.zoomBy(apart(event) / Math.max(apart(before), 1));
        this.drawn = null;
      } else if (this.began.windowing) {
        this.window(dy / 400, dx / 400);
      } else if (this.tool === "box") {
        this.drawn = ordered(this.began.at, this.pixel(pane, event));
        this.draw();
      } else {
        const { sx, sy, scale } = pane.place;
        this.move((-dx * scale) / (pane.columns * sx), (-dy * scale) / (pane.rows * sy));
      }
      held.set(event.pointerId, event);
    };
    canvas.onpointerup = canvas.onpointercancel = (event) => {
      const one = held.size === 1;
      held.delete(event.pointerId);
      if (event.type === "pointerup" && one && this.began) {
        if (this.tool === "click" && !this.began.moved) this.mark(this.pixel(pane, event));
        if (this.tool === "box" && this.drawn) this.mark(this.drawn);
      }
      this.drawn = null;
      if (!held.size) this.began = null;
      this.draw();
    };
    canvas.oncontextmenu = (event) => event.preventDefault();
    canvas.onfocus = canvas.onblur = () => this.draw();
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (this.depth > 1 && !event.ctrlKey) this.scroll(Math.sign(event.deltaY));
      else this.zoomBy(Math.exp(-event.deltaY / 400));
    }, { passive: false });
  }

  mark(place) {
    if (place.length === 4 && (place[2] - place[0] < 1 || place[3] - place[1] < 1)) return;
    this.marks.push([this.slice, ...place.map((each) => Math.round(each * 10) / 10)]);
    this.marked();
    this.draw();
  }

  // With keys: Enter at the cursor.
  markHere() {
    if (this.tool === "click") this.mark([...this.cursor]);
    else if (!this.corner) this.corner = [...this.cursor];
    else {
      const box = ordered(this.corner, this.cursor);
      this.corner = null;
      this.mark(box);
    }
    this.draw();
  }

  moveCursor(dx, dy) {
    const { columns, rows } = this.panes[0], step = Math.max(1, Math.round(columns / 64));
    this.cursor[0] = Math.min(Math.max(this.cursor[0] + dx * step, 0), columns);
    this.cursor[1] = Math.min(Math.max(this.cursor[1] + dy * step, 0), rows);
    this.draw();
  }

  unmark() {
    this.marks.pop();
    this.corner = null;
    this.draw();
  }

  move(dx, dy) {
    const most = this.zoom > 1 ? 0.5 : 0;
    this.x = Math.min(Math.max(this.x + dx, -most), most);
    this.y = Math.min(Math.max(this.y + dy, -most), most);
    this.draw();
  }

  zoomBy(factor) {
    this.zoom = Math.min(Math.max(this.zoom * factor, 1), 16);
    this.move(0, 0);
  }

  fit() {
    Object.assign(this, { zoom: 1, x: 0, y: 0 });
    this.draw();
  }

  scroll(by) {
    this.slice = Math.min(Math.max(this.slice + by, 0), this.depth - 1);
    this.draw();
  }

  window(centre, width) {
    if (!this.adjust) return;
    this.centre = Math.min(Math.max(this.centre + centre, 0), 1);
    this.width = Math.min(Math.max(this.width + width, 0.02), 2);
    this.draw();
  }
}

const ordered = ([a, b], [c, d]) => [Math.min(a, c), Math.min(b, d), Math.max(a, c), Math.max(b, d)];

function cross(paint, x, y, size) {
  paint.beginPath();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    paint.moveTo(x + dx * size * 0.3, y + dy * size * 0.3);
    paint.lineTo(x + dx * size, y + dy * size);
  }
  paint.stroke();
}
