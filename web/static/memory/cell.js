// What there is to say about one cell, as a card and as a sentence.
import { el, write } from "/lib/dom.js";
import { bytes, percent, span } from "/lib/format.js";
import { states } from "/memory/palette.js";

const hex = (n) => "0x" + n.toString(16);

// cellCard makes the card; name(owner) answers what an owner is called.
export function cellCard(name) {
  const title = el("h3", {}, "No cell chosen"), body = el("dl", { class: "facts-list" });
  const hint = el("p", { class: "muted small-text" }, "Point at a cell, or choose the map with Tab and move with the arrow keys.");
  return { node: el("div", { class: "card", id: "cell-card" }, title, hint, body), show(cells, i) {
    hint.hidden = i >= 0;
    write(title, i < 0 ? "No cell chosen" : range(cells, i));
    body.replaceChildren(...(i < 0 ? [] : facts(cells, i, name)).flatMap(([what, text, tone]) => [el("dt", { class: tone ? "swatch " + tone : "" }, what), el("dd", {}, text)]));
  } };
}

function range(cells, i) {
  const first = cells.first[i];
  return cells.per === 1 ? `Page ${first.toLocaleString("en")}` : `Pages ${first.toLocaleString("en")} – ${(first + cells.per - 1).toLocaleString("en")}`;
}

function facts(cells, i, name) {
  const size = cells.pageSize, first = cells.first[i];
  const list = [["Address", `${hex(first * size)} – ${hex((first + cells.per) * size - 1)}, ${bytes(cells.per * size)}`]];
  for (const s of states) if (cells[s.key][i]) list.push([s.word, amount(cells[s.key][i], cells), "sw-" + s.tone]);
  if (cells.unmovable[i]) list.push(["of the used, unmovable", amount(cells.unmovable[i], cells)]);
  if (cells.run[i] && cells.per > 1) list.push(["longest free run", `${cells.run[i].toLocaleString("en")} page${cells.run[i] === 1 ? "" : "s"}, ${bytes(cells.run[i] * size)}`]);
  for (const o of cells.owners[i]) list.push([name(o.owner), amount(o.pages, cells)]);
  if (cells.node[i] >= 0) list.push(["NUMA node", String(cells.node[i])]);
  if (cells.unknown[i] < cells.per && cells.absent[i] < cells.per) list.push(["read", cells.age[i] < 1 ? "just now" : `${span(cells.age[i])} ago`]);
  return list;
}

const amount = (n, cells) => (cells.per === 1 ? "yes" : `${n.toLocaleString("en")} page${n === 1 ? "" : "s"}, ${percent(n / cells.per)}`);

// spoken is the cell for who does not see it.
export function spoken(cells, i, name) {
  return `${range(cells, i)}: ${facts(cells, i, name).slice(1).map(([what, text]) => `${what} ${text}`).join(", ")}`;
}
