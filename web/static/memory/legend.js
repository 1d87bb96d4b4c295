// The legend counts: how many pages of each kind there are, and whether they add up.
import { el, reconcile, set } from "/lib/dom.js";
import { bytes } from "/lib/format.js";
import { states } from "/memory/palette.js";

// legend makes the list of kinds. Its lines are {id, tone, word, title, pages}.
export function legend() {
  const list = el("ul", { class: "amounts", id: "map-legend", "aria-label": "Pages by kind" }), sum = el("p", { class: "small-text muted", id: "map-sum" });
  return { node: el("div", {}, list, sum), show(lines, pageSize, total, words) {
    const all = lines.reduce((n, line) => n + line.pages, 0);
    reconcile(list, lines.filter((line) => line.pages || line.always), () => el("li", {}, el("span", { "data-k": "word" }), el("span", { class: "num", "data-k": "pages" }), el("span", { class: "num muted", "data-k": "bytes" })), (node, line) => {
      set(node, "word", line.word).className = "swatch sw-" + line.tone;
      node.title = line.title ?? "";
      node.dataset.pages = line.pages;
      set(node, "pages", line.pages.toLocaleString("en"));
      set(node, "bytes", bytes(line.pages * pageSize));
    });
    sum.textContent = words(all, total);
    Object.assign(sum.dataset, { sum: all, total });
  } };
}

const total = (list) => list.reduce((a, b) => a + b, 0);

// stateLines are the kinds of pages in the cells that are shown.
export function stateLines(cells) {
  return states.map((s) => ({ id: s.key, tone: s.tone, word: s.word, title: s.about, pages: total(cells[s.key]), always: ["used", "fragmented", "whole"].includes(s.key) }));
}

// ownerLines are who has the pages in the cells that are shown, and what nobody
// has. A cell names the owners with the most pages; what others have in it is
// counted as used by somebody else.
export function ownerLines(cells, owners, colors) {
  const by = new Map();
  cells.owners.forEach((list) => { for (const o of list) by.set(o.owner, (by.get(o.owner) ?? 0) + o.pages); });
  const of = (test) => total([...by].filter(([owner]) => test(owner, colors.tone(owner))).map(([, n]) => n));
  const named = owners.filter((o) => colors.tone(o.owner).startsWith("vm")), rest = owners.filter((o) => colors.tone(o.owner) === "others").length;
  return [
    ...named.map((o) => ({ id: o.owner, tone: colors.tone(o.owner), word: o.name, pages: by.get(o.owner) ?? 0, always: true })),
    { id: "others", tone: "others", word: `${rest} other VM${rest === 1 ? "" : "s"}`, pages: of((_, tone) => tone === "others") },
    { id: "deleted", tone: "deleted", word: "left by deleted VMs", title: "charged to cgroups that are gone", pages: by.get("deleted") ?? 0 },
    { id: "host", tone: "host", word: "host", title: "the kernel, and what no VM is charged for", pages: by.get("host") ?? 0, always: true },
    { id: "mixed", tone: "others", word: "others, in mixed cells", title: "a cell names its two largest owners", pages: total(cells.used) - total([...by.values()]) },
    { id: "free", tone: "nobody", word: "free", pages: total(cells.free) + total(cells.uninitialised), always: true },
    { id: "unknown", tone: "unknown", word: "not yet scanned", pages: total(cells.unknown) },
    { id: "absent", tone: "absent", word: "absent", title: "no memory at these addresses", pages: total(cells.absent) },
  ];
}

export const signed = (n) => (n > 0 ? "+" : n < 0 ? "−" : "") + Math.abs(n).toLocaleString("en");
