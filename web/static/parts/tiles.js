// The host in four numbers.
import { el, level, set } from "/lib/dom.js";
import { bytes, cores, percent } from "/lib/format.js";

const tileNames = [["cpu", "CPU"], ["memory", "Memory"], ["storage", "Storage"], ["promised", "Promised to VMs"]];

export function drawTiles(tiles, host) {
  if (!host) return;
  if (!tiles.children.length) {
    for (const [key, label] of tileNames) {
      tiles.append(el("div", { class: "tile", id: "tile-" + key }, el("span", { class: "label" }, label), el("span", { class: "value", "data-k": "value" }),
        el("progress", { max: 1, "aria-label": label }), el("span", { class: "note", "data-k": "note" })));
    }
  }
  const u = host.usage;
  tile(tiles, "cpu", percent(u.cpu_ratio), u.cpu_ratio, `${host.cpus} cores, load ${u.load1.toFixed(2)}`);
  tile(tiles, "memory", bytes(u.memory_used_bytes), u.memory_used_bytes / host.memory_bytes, `of ${bytes(host.memory_bytes)}`);
  tile(tiles, "storage", bytes(u.storage_used_bytes), u.storage_used_bytes / host.storage_bytes, `of ${bytes(host.storage_bytes)}`);
  tile(tiles, "promised", bytes(host.reserved.memory_bytes), host.reserved.memory_bytes / host.capacity.memory_bytes,
    `of ${bytes(host.capacity.memory_bytes)}; ${cores(host.reserved.cpus)} of ${cores(host.capacity.cpus)} cores`);
}

function tile(tiles, key, value, ratio, note) {
  const node = tiles.querySelector("#tile-" + key);
  set(node, "value", value);
  set(node, "note", note);
  level(node.querySelector("progress"), ratio);
}
