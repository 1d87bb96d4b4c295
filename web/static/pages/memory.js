// The memory page: the numbers, the map of physical pages, zones and owners.
import { call } from "/lib/api.js";
import { choice, el, section, write } from "/lib/dom.js";
import { bytes, percent, span } from "/lib/format.js";
import { state } from "/lib/live.js";
import { Poll } from "/lib/poll.js";
import { setQuery } from "/lib/router.js";
import { cellCard, spoken } from "/memory/cell.js";
import { readCells } from "/memory/data.js";
import { legend, ownerLines, signed, stateLines } from "/memory/legend.js";
import { MapCanvas } from "/memory/map.js";
import { processes } from "/memory/processes.js";
import { ownerColors, ownerParts, stateParts } from "/memory/palette.js";
import { scanControl, summary } from "/memory/summary.js";
import { ownerTable, zoneTable } from "/memory/tables.js";
import { keyOf } from "/memory/keys.js";
import { View } from "/memory/view.js";

const ownersEvery = 5000; // ms
const modes = [["state", "State"], ["owner", "Owner"]];

export function open(root, _, query) {
  const page = new MemoryPage(root);
  page.query(query);
  page.begin();
  return { title: "Memory", query: (q) => page.query(q), close: () => page.close() };
}

class MemoryPage {
  constructor(root) {
    this.view = new View(0, 0);
    this.memory = this.cells = null;
    this.owners = [];
    this.ownersAt = 0;
    this.page = null;
    this.colors = ownerColors([]);
    this.cursor = -1;
    this.name = (owner) => this.owners.find((o) => o.owner === owner)?.name ?? state.vms.find((vm) => vm.id === owner)?.name ?? owner;
    this.map = new MapCanvas({ point: (i) => this.point(i), leave: () => { if (document.activeElement !== this.map.node) this.point(-1); }, open: (i) => this.zoomIn(i), zoom: (i, inwards) => (inwards ? this.zoomIn(i) : this.zoomOut()), key: (e) => this.key(e) });
    this.build(root);
  }

  build(root) {
    this.summary = summary();
    this.scan = scanControl(() => this.poll?.soon());
    this.card = cellCard(this.name);
    this.legend = legend();
    this.zones = zoneTable();
    this.ownerTable = ownerTable((owner) => this.choose("owner", owner));
    this.mode = choice("Mode", modes, "state", (mode) => this.choose(mode, ""));
    this.crumbs = el("nav", { class: "crumbs map-crumbs", "aria-label": "Part of memory" });
    this.trouble = el("p", { class: "empty", id: "map-trouble" }, "Asking the agent…");
    this.live = el("p", { class: "sr", role: "status", "aria-live": "polite", id: "map-live" });
    this.age = el("p", { class: "small-text muted", id: "map-age" });
    const button = (text, label, act) => el("button", { type: "button", class: "small", title: label, "aria-label": label, onclick: act }, text);
    this.inButton = button("+", "Zoom in", () => this.zoomIn(this.cursor));
    this.outButton = button("−", "Zoom out", () => this.zoomOut());
    this.before = button("‹", "Earlier addresses", () => this.pan(-0.5));
    this.after = button("›", "Later addresses", () => this.pan(0.5));
    this.only = el("button", { type: "button", class: "small", hidden: true, title: "Show all owners", onclick: () => this.choose("owner", "") }, "");
    this.whole = el("div", { class: "map-grid" }, el("div", { class: "map-side" }, this.crumbs, this.map.node, this.age),
      el("div", { class: "side" }, this.legend.node, this.card.node));
    this.coverage = el("p", { class: "small-text muted under" });
    this.ownersSection = section("Owners", "owners-title", this.ownerTable.node, this.coverage);
    this.ownersSection.firstChild.append(this.ownerTable.csv);
    this.processes = processes();
    root.append(el("h1", { tabIndex: -1 }, "Memory"), this.summary.node,
      el("section", { "aria-labelledby": "map-title" }, el("div", { class: "section-head wrap" }, el("h2", { id: "map-title" }, "Map of physical pages"), this.scan.node, this.only, this.mode, el("div", { class: "choice" }, this.before, this.after, this.outButton, this.inButton)),
        this.trouble, this.whole, el("p", { class: "sr", id: "map-keys" }, "Arrow keys move between cells, Home and End within a row, Page Up and Page Down by eight rows. Enter or plus zooms in, Escape or minus zooms out, brackets move to the addresses before and after."), this.live),
      this.ownersSection, this.processes.node, section("Zones", "zones-title", this.zones.node));
    this.whole.hidden = this.ownersSection.hidden = true;
  }

  begin() {
    this.poll = new Poll(2000, () => this.readSummary());
    this.mapPoll = new Poll(5000, () => this.readMap());
  }

  close() {
    this.poll.stop();
    this.mapPoll.stop();
    this.map.close();
  }

  // query takes mode, owner and window from the address.
  query(q) {
    const mode = q.get("mode") === "owner" ? "owner" : "state";
    this.chosen = mode === "owner" ? q.get("vm") ?? "" : "";
    this.inMode = mode;
    this.mode.mark(mode);
    this.processes.choose(this.chosen);
    this.view.to(Number(q.get("from")), Number(q.get("span")));
    this.mapPoll?.soon();
  }

  choose(mode, owner) {
    setQuery({ mode: mode === "state" ? null : mode, vm: owner === this.chosen ? null : owner }, true);
    this.query(new URLSearchParams(location.search));
    this.draw();
  }

  async readSummary() {
    try {
      this.memory = await call("GET", "/memory");
      this.summary.show(this.memory);
      this.scan.show(this.memory);
      this.zones.show(this.memory);
      if (["unavailable", "off"].includes(this.memory.scan.state)) this.excuse(this.memory.scan.reason || "The scan of pages is off.");
    } catch (refusal) { this.excuse(refusal.message); }
  }

  async readMap() {
    if (["unavailable", "off"].includes(this.memory?.scan.state)) return;
    const window = this.view.window, owner = this.chosen;
    try {
      const [cells, owners] = await Promise.all([readCells(window, this.map.cellsWanted(), owner), this.readOwners()]);
      if (window !== this.view.window || owner !== this.chosen) return this.mapPoll.soon(); // asked for another meanwhile
      Object.assign(this, { cells, owners });
      this.colors = ownerColors(this.owners);
      this.excuse("");
      this.draw();
      this.processes.read(this.name);
    } catch (refusal) {
      this.excuse(refusal.problem?.status === 503 ? "Nothing has been scanned yet. The first cells appear within seconds." : refusal.message);
      if (refusal.problem?.status === 422 && this.view.deep) { this.view.to(0, 0); this.moved(); }
      if (refusal.problem?.status === 404 && this.chosen) this.choose("owner", "");
    }
  }

  // readOwners asks for the owners, which takes the agent longer than a part of the map does.
  async readOwners() {
    if (Date.now() - this.ownersAt < ownersEvery) return this.owners;
    this.ownersAt = Date.now();
    return (await call("GET", "/memory/owners")).owners.sort((a, b) => b.pages - a.pages);
  }

  // excuse says why there is no map.
  excuse(text) {
    this.trouble.hidden = !text;
    write(this.trouble, text);
    this.whole.hidden = this.ownersSection.hidden = Boolean(text) && !this.cells;
  }

  draw() {
    const { cells } = this;
    if (!cells) return;
    const owner = this.inMode === "owner";
    this.map.show(cells, owner ? (i) => ownerParts(cells, i, this.colors, this.chosen) : (i) => stateParts(cells, i));
    this.map.node.setAttribute("aria-label", `Map of physical pages by ${owner ? "owner" : "state"}, ${cells.count} cells of ${cells.per} pages`);
    this.drawLegend(owner);
    this.ownerTable.show(this.owners);
    this.drawCrumbs();
    write(this.age, ageText(cells));
    this.outButton.disabled = this.before.disabled = this.after.disabled = !this.view.deep;
    this.inButton.disabled = cells.per <= 1;
    if (this.page !== null) { // the cursor stays on the page that it was on
      this.cursor = Math.max(0, Math.floor((this.page - cells.from) / cells.per));
      this.page = null;
    }
    this.point(Math.min(this.cursor, cells.count - 1), false);
  }

  drawLegend(owner) {
    const { cells, memory } = this, part = this.view.deep ? " in this part" : "";
    const lines = owner ? ownerLines(cells, this.owners, this.colors) : stateLines(cells);
    if (this.chosen) for (const line of lines) if (line.id !== this.chosen && !["free", "unknown", "absent"].includes(line.id)) line.tone = "dimmed";
    this.only.hidden = !this.chosen;
    write(this.only, `Only ${this.name(this.chosen)} ✕`);
    const counters = !memory || this.view.deep || owner ? "" : ` The kernel's own counters say ${(memory.free_pages + memory.uninitialised_pages).toLocaleString("en")} free; MemFree differs from them by ${signed(memory.residual_pages)} pages.`;
    this.legend.show(lines, cells.pageSize, cells.count * cells.per, (sum, total) => `Together ${sum.toLocaleString("en")} page frames${part}${sum === total ? "" : `, of ${total.toLocaleString("en")}`}.${counters}`);
    const map = memory?.map, done = map ? map.scanned_pages / memory.total_pages : 0;
    write(this.coverage, !map ? "" : done < 0.999 ? `Counted in the ${percent(done)} of memory that the scan has come to so far.` : `Counted by the rolling scan${memory.scan.age_seconds === null ? "" : `, which last came to the end ${span(memory.scan.age_seconds)} ago`}; the map above is newer where it is read page by page.`);
  }

  drawCrumbs() {
    const parts = this.view.stack.map((w, i) => {
      const text = w ? `${bytes(w.span * this.cells.pageSize)} at ${bytes(w.from * this.cells.pageSize)}` : "All memory";
      return i === this.view.stack.length - 1 ? el("span", { "aria-current": "page" }, text) : el("button", { type: "button", class: "link", onclick: () => { this.view.stack.length = i + 1; this.moved(); } }, text);
    });
    this.crumbs.replaceChildren(...parts.flatMap((node, i) => (i ? [" › ", node] : [node])));
  }

  // point puts the cursor on a cell; aloud when it was moved by a key.
  point(i, aloud = false) {
    this.cursor = i;
    this.map.point(i);
    this.card.show(this.cells, this.cells ? i : -1);
    if (!aloud || i < 0) return;
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => write(this.live, spoken(this.cells, i, this.name)), 300);
  }

  zoomIn(cell) {
    if (!this.cells) return;
    const window = this.view.into(this.cells, cell < 0 ? Math.floor(this.cells.count / 2) : cell, this.map.cellsWanted());
    if (!window) return;
    this.view.push(window);
    this.moved();
  }

  zoomOut() {
    if (!this.view.deep) return;
    this.view.out();
    this.moved();
  }

  pan(share) {
    this.view.beside(this.cells, share);
    this.moved();
  }

  // moved shows another part: the address names it, so that Back leads out again.
  moved() {
    const w = this.view.window;
    if (this.cells && this.cursor >= 0) this.page = this.cells.first[this.cursor];
    setQuery({ from: w ? w.from : null, span: w?.span }, true);
    this.mapPoll.soon();
  }

  key(event) {
    if (!this.cells) return;
    const act = keyOf(event, this.cursor, this.map.columns, this.cells.count);
    if (!act) return;
    event.preventDefault();
    if (act.cell !== undefined) this.point(act.cell, true);
    else if (act.zoom > 0) this.zoomIn(this.cursor);
    else if (act.zoom < 0) this.zoomOut();
    else this.pan(act.pan);
  }
}

function ageText(cells) {
  const ages = cells.age.filter((_, i) => cells.unknown[i] < cells.per && cells.absent[i] < cells.per);
  const size = `A cell is ${cells.per.toLocaleString("en")} page${cells.per === 1 ? "" : "s"}, ${bytes(cells.per * cells.pageSize)}.`;
  if (!ages.length) return size;
  const newest = ages.reduce((a, b) => Math.min(a, b)), oldest = ages.reduce((a, b) => Math.max(a, b));
  return `${size} ${oldest < 1 ? "All were read just now." : `The newest was read ${span(newest)} ago, the oldest ${span(oldest)}.`}`;
}
