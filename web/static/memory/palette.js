// What the map's parts look like. The three main colours stay apart under every
// kind of colour blindness, and no two are of the same lightness.
import { bytes } from "/lib/format.js";

// states in the order in which they are stacked in a cell, from below.
export const states = [
  { key: "used", word: "used", tone: "used", color: "#80000b", about: "not free, whoever has it" },
  { key: "fragmented", word: "fragmented", tone: "fragmented", color: "#ffe433", about: "free, but no whole huge page of it" },
  { key: "whole", word: "free", tone: "free", color: "#4c998c", about: "free, in whole huge pages" },
  { key: "uninitialised", word: "not yet initialised", tone: "uninit", color: "#a9d3cb", about: "free; the kernel has not touched it since boot" },
  { key: "unknown", word: "not yet scanned", tone: "unknown", color: "#d9dce1", about: "the scan has not come here" },
  { key: "absent", word: "absent", tone: "absent", color: "#8a9099", about: "no memory at this address" },
];

// The VMs with the most pages get a colour of their own; more hues than these are not told apart.
const vmColors = ["#0072b2", "#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#d55e00", "#5d3a9b", "#f0e442"];
const others = "#6d7a8c", host = "#3c3f46", deleted = "#b51963";
const freeColor = "#eef0f2", dimmed = "#a4a9b1";

// ownerColors gives each owner its colour; owners are sorted by their pages.
export function ownerColors(owners) {
  const vms = owners.filter((o) => o.owner !== "host" && o.owner !== "deleted");
  const colors = new Map([["host", host], ["deleted", deleted]]);
  vms.forEach((o, i) => colors.set(o.owner, vmColors[i] ?? others));
  const place = new Map(vms.slice(0, vmColors.length).map((o, i) => [o.owner, `vm${i}`]));
  return { of: (owner) => colors.get(owner) ?? others, tone: (owner) => (owner === "host" || owner === "deleted" ? owner : place.get(owner) ?? "others") };
}

// stateParts are what a cell is stacked of: [pages, colour] from below.
export function stateParts(cells, i) {
  return states.map((s) => [cells[s.key][i], s.color]);
}

// ownerParts are the same by owner, or of one that was chosen and all others.
export function ownerParts(cells, i, colors, chosen) {
  const parts = [];
  let left = cells.used[i];
  if (chosen) {
    parts.push([cells.owned[i], colors.of(chosen)], [left - cells.owned[i], dimmed]);
  } else {
    for (const { owner, pages } of cells.owners[i]) {
      parts.push([pages, colors.of(owner)]);
      left -= pages;
    }
    if (left > 0) parts.push([left, others]);
  }
  parts.push([cells.fragmented[i] + cells.whole[i] + cells.uninitialised[i], freeColor], [cells.unknown[i], states[4].color], [cells.absent[i], states[5].color]);
  return parts;
}

export const pagesText = (pages, pageSize) => `${Math.round(pages).toLocaleString("en")} pages, ${bytes(pages * pageSize)}`;
