// The three numbers everybody asks for first, and what to make of them; the scan.
import { call } from "/lib/api.js";
import { el, set, write } from "/lib/dom.js";
import { bytes, percent, span } from "/lib/format.js";
import { attempt } from "/lib/session.js";

const tenth = (ratio) => `${(ratio * 100).toFixed(1)} %`;
const tiles = [["total", "Total Pages"], ["free", "Free Pages"], ["fragmentation", "Fragmentation %"], ["huge", "Huge pages at hand"], ["compactable", "Compactable"]];

export function summary() {
  const node = el("section", { class: "tiles", "aria-label": "Memory in numbers" }, ...tiles.map(([key, label]) =>
    el("div", { class: "tile", id: "mem-" + key }, el("span", { class: "label" }, label), el("span", { class: "value", "data-k": "value" }, "—"), el("span", { class: "note", "data-k": "note" }))));
  const put = (key, value, note, title) => {
    const tile = node.querySelector("#mem-" + key);
    set(tile, "value", value);
    set(tile, "note", note);
    tile.title = title ?? "";
  };
  return { node, show(m) {
    const size = m.page_size, n = (pages) => pages.toLocaleString("en");
    put("total", n(m.total_pages), `${bytes(m.total_bytes)} in pages of ${bytes(size)}`, `MemTotal is ${bytes(m.mem_total_bytes)}; the rest was kept by the kernel at boot`);
    put("free", n(m.free_pages + m.uninitialised_pages), `${bytes((m.free_pages + m.uninitialised_pages) * size)}, ${percent((m.free_pages + m.uninitialised_pages) / m.total_pages)}${m.uninitialised_pages ? `; ${n(m.uninitialised_pages)} not yet initialised` : ""}`);
    const worst = m.worst_zone ? `; worst ${tenth(m.worst_zone.fragmentation_ratio)} in node ${m.worst_zone.node}, ${m.worst_zone.zone}` : "";
    put("fragmentation", m.fragmentation_ratio === null ? "—" : tenth(m.fragmentation_ratio), m.fragmentation_ratio === null ? "nothing is free" : `${tenth(m.fragmentation_ratio)} of ${bytes(m.free_bytes)} free${worst}`,
      `free pages in blocks smaller than ${bytes(m.huge_block_bytes)} / free pages`);
    put("huge", n(m.free_huge_blocks), `of ${bytes(m.huge_block_bytes)} each, ${bytes(m.free_huge_blocks * m.huge_block_bytes)} free at once`);
    put("compactable", m.compactable_ratio === null ? "—" : percent(m.compactable_ratio), m.compactable_ratio === null ? "known after the first whole scan" : `of ${bytes(m.huge_block_bytes)} blocks have no unmovable page`);
  } };
}

// scanControl starts and stops a full pass, and tells how old the map is.
export function scanControl(refresh) {
  const start = el("button", { type: "button", class: "small", id: "scan-start", onclick: () => act("POST") }, "Scan everything now");
  const cancel = el("button", { type: "button", class: "small", id: "scan-cancel", hidden: true, onclick: () => act("DELETE") }, "Cancel");
  const bar = el("progress", { max: 1, hidden: true, "aria-label": "Full scan" }), words = el("span", { class: "small-text muted", id: "scan-words" });
  const act = (method) => attempt(() => call(method, "/memory/scan").then(refresh));
  return { node: el("div", { class: "scan" }, words, bar, cancel, start), show({ scan }) {
    const full = scan.full, there = scan.state !== "unavailable" && scan.state !== "off";
    bar.hidden = cancel.hidden = !full;
    start.hidden = Boolean(full) || !there;
    if (full) bar.value = full.progress;
    write(words, there ? state(scan) : "");
  } };
}

function state(scan) {
  const done = scan.pages ? percent(scan.pages_scanned / scan.pages) : "";
  const age = scan.age_seconds === null ? "no whole pass yet" : `last whole pass ${span(scan.age_seconds)} ago`;
  if (scan.full) return `full scan, ${percent(scan.full.progress)}`;
  return scan.state === "rolling" ? `rolling scan at ${done}; ${age}` : age;
}
