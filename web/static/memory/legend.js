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

// ownerLines are who has pages of the whole host, and what nobody has.
export function ownerLines(owners, map, colors) {
  const vms = owners.filter((o) => colors.tone(o.owner) !== "others" && o.owner !== "host" && o.owner !== "deleted");
  const rest = owners.filter((o) => colors.tone(o.owner) === "others");
  const by = (owner) => owners.find((o) => o.owner === owner)?.pages ?? 0;
  return [
    ...vms.map((o) => ({ id: o.owner, tone: colors.tone(o.owner), word: o.name, pages: o.pages, always: true })),
    { id: "others", tone: "others", word: `${rest.length} other VM${rest.length === 1 ? "" : "s"}`, pages: total(rest.map((o) => o.pages)) },
    { id: "deleted", tone: "deleted", word: "left by deleted VMs", title: "charged to cgroups that are gone", pages: by("deleted") },
    { id: "host", tone: "host", word: "host", title: "the kernel, and what no VM is charged for", pages: by("host"), always: true },
    { id: "free", tone: "nobody", word: "free", pages: map ? map.free_pages + map.uninitialised_pages : 0, always: true },
    { id: "absent", tone: "absent", word: "absent", title: "holes inside of blocks that have memory", pages: map?.absent_pages ?? 0 },
  ];
}

export const signed = (n) => (n > 0 ? "+" : n < 0 ? "−" : "") + Math.abs(n).toLocaleString("en");
