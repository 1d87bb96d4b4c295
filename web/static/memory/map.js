// The map on its canvas: every cell is a small column, as full of each colour as
// it has pages of that kind, so that areas are amounts. A second canvas above it
// has the cursor.
import { el } from "/lib/dom.js";

const layers = 8; // a cell is drawn in this many layers
const tall = 2; // a cell is so many times as high as it is wide

export class MapCanvas {
  // on: {point(cell), leave(), open(cell), zoom(cell, inwards), key(event)}
  constructor(on) {
    this.columns = 128;
    this.cells = null;
    this.base = el("canvas", { "aria-hidden": "true" });
    this.over = el("canvas", { "aria-hidden": "true", class: "over" });
    this.node = el("div", { class: "map", id: "map", tabIndex: 0, role: "application", "aria-roledescription": "memory map", "aria-describedby": "map-keys" }, this.base, this.over);
    this.pixels = document.createElement("canvas");
    this.cursor = -1;
    this.node.addEventListener("pointermove", (e) => { const i = this.cellAt(e); if (i >= 0) on.point(i); });
    this.node.addEventListener("pointerleave", () => on.leave());
    this.node.addEventListener("click", (e) => { const i = this.cellAt(e); if (i >= 0) on.open(i); });
    this.node.addEventListener("wheel", (e) => {
      if (!e.ctrlKey && document.activeElement !== this.node) return; // the page scrolls on until the map is chosen
      const i = this.cellAt(e);
      e.preventDefault();
      if (i >= 0) on.zoom(i, e.deltaY < 0);
    }, { passive: false });
    this.node.addEventListener("keydown", (e) => on.key(e));
    this.resize = new ResizeObserver(() => this.paint());
    this.resize.observe(this.node);
  }

  // cellsWanted is how many cells fit: fewer on a narrow screen, where they are still to be hit.
  cellsWanted() {
    this.columns = (this.node.clientWidth || innerWidth) < 640 ? 64 : 128;
    return this.columns * 32;
  }

  get rows() { return this.cells ? Math.ceil(this.cells.count / this.columns) : 0; }

  cellAt(event) {
    if (!this.cells) return -1;
    const box = this.base.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.columns), y = Math.floor(((event.clientY - box.top) / box.height) * this.rows);
    const i = y * this.columns + x;
    return x >= 0 && x < this.columns && y >= 0 && i < this.cells.count ? i : -1;
  }

  // show draws cells; parts(i) are the [pages, colour] of a cell from below.
  show(cells, parts) {
    this.cells = cells;
    this.fill(parts);
    this.paint();
  }

  fill(parts) {
    const { columns, rows, cells } = this;
    Object.assign(this.pixels, { width: columns, height: rows * layers });
    const pen = this.pixels.getContext("2d"), image = pen.createImageData(columns, rows * layers);
    const out = new Uint32Array(image.data.buffer);
    for (let i = 0; i < cells.count; i++) {
      const x = i % columns, top = Math.floor(i / columns) * layers;
      let below = 0, pages = 0;
      const list = parts(i), all = list.reduce((sum, [n]) => sum + n, 0) || 1;
      for (const [n, color] of list) {
        pages += n;
        // what is there at all is seen, if only a little
        const upto = Math.max(Math.round((pages / all) * layers), n > all / 100 ? Math.min(below + 1, layers) : 0);
        for (let layer = below; layer < upto; layer++) out[(top + layers - 1 - layer) * columns + x] = packed(color);
        below = Math.max(below, upto);
      }
    }
    pen.putImageData(image, 0, 0);
  }

  paint() {
    if (!this.cells || !this.node.clientWidth) return;
    const scale = devicePixelRatio || 1, side = this.node.clientWidth / this.columns;
    for (const canvas of [this.base, this.over]) {
      canvas.width = Math.round(this.node.clientWidth * scale);
      canvas.height = Math.round(side * tall * this.rows * scale);
      canvas.style.height = `${side * tall * this.rows}px`;
    }
    const pen = this.base.getContext("2d"), size = side * scale;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.pixels, 0, 0, this.base.width, this.base.height);
    if (side >= 4) this.gutters(pen, size, scale);
    this.point(this.cursor);
  }

  gutters(pen, size, scale) {
    pen.strokeStyle = "#00000038";
    pen.lineWidth = 1;
    pen.beginPath();
    for (let x = 1; x < this.columns; x++) { pen.moveTo(Math.round(x * size), 0); pen.lineTo(Math.round(x * size), this.base.height); }
    for (let y = 1; y < this.rows; y++) { pen.moveTo(0, Math.round(y * tall * size)); pen.lineTo(this.base.width, Math.round(y * tall * size)); }
    pen.stroke();
  }

  // point puts the cursor on a cell, or nowhere with -1.
  point(cell) {
    this.cursor = cell;
    const pen = this.over.getContext("2d"), scale = devicePixelRatio || 1, size = this.over.width / this.columns;
    pen.clearRect(0, 0, this.over.width, this.over.height);
    if (cell < 0) return;
    const x = (cell % this.columns) * size, y = Math.floor(cell / this.columns) * size * tall;
    for (const [color, grow] of [["#000", 2.5], ["#fff", 1]]) { // seen on every colour
      pen.strokeStyle = color;
      pen.lineWidth = 2 * scale;
      pen.strokeRect(x - grow * scale, y - grow * scale, size + 2 * grow * scale, size * tall + 2 * grow * scale);
    }
  }

  close() { this.resize.disconnect(); }
}

const known = new Map();

// packed is a #rrggbb colour as a little-endian pixel.
function packed(color) {
  let value = known.get(color);
  if (value === undefined) {
    const n = parseInt(color.slice(1), 16);
    value = (0xff000000 | ((n & 0xff) << 16) | (n & 0xff00) | (n >> 16)) >>> 0;
    known.set(color, value);
  }
  return value;
}
