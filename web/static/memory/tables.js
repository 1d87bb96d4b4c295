// The map in numbers: zones and owners.
import { el, save, write } from "/lib/dom.js";
import { bytes, percent } from "/lib/format.js";

const ratio = (r) => (r === null || r === undefined ? "—" : percent(r));
const count = (n) => n.toLocaleString("en");

// table makes a table of texts; head are [text, class, title].
export function table(id, label, head) {
  const body = el("tbody");
  const node = el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": label }, el("table", { id }, el("thead", {}, el("tr", {}, ...head.map(([text, kind, title]) => el("th", { scope: "col", class: kind, title }, text)))), body));
  return { node, rows(list) {
    while (body.children.length > list.length) body.lastChild.remove();
    list.forEach((row, i) => {
      if (!body.children[i]) body.append(el("tr", {}, ...head.map(([, kind], k) => el(k ? "td" : "th", { class: kind, scope: k ? undefined : "row" }))));
      row.forEach((text, k) => write(body.children[i].children[k], text));
    });
    return body;
  } };
}

export function zoneTable() {
  const t = table("zones", "Zones", [["Zone"], ["Present", "num"], ["Free", "num"], ["Fragmentation", "num", "share of the free pages in blocks smaller than a huge page"], ["Free huge pages", "num"], ["Free blocks by order, 0 first", "orders"]]);
  return { node: t.node, show(m) {
    t.rows(m.zones.map((z) => [`node ${z.node}, ${z.zone}`, bytes(z.present_pages * m.page_size), bytes(z.free_pages * m.page_size), ratio(z.unusable_free_ratio?.[m.huge_order]),
      count(z.free_blocks.reduce((sum, n, order) => sum + (order >= m.huge_order ? n * 2 ** (order - m.huge_order) : 0), 0)), z.free_blocks.map(count).join(" · ")]));
  } };
}

export function ownerTable(onChoose) {
  const t = table("owners", "Owners of pages", [["Owner"], ["Pages", "num"], ["Memory", "num"], ["Share of used", "num"], ["In huge pages", "num"], ["Scattered", "num", "share of its pages outside of runs as long as a huge page"],
    ["Resident", "num", "sum of the resident sets of its processes"], ["Charged", "num", "memory.current"], ["Not explained", "num", "charged, less pages, less slab and sockets"]]);
  let last = [];
  const csv = el("button", { type: "button", class: "small quiet", onclick: () => save("memory-owners.csv", csvOf(last)) }, "CSV");
  return { node: t.node, csv, show(owners) {
    last = owners;
    const used = owners.reduce((sum, o) => sum + o.pages, 0) || 1;
    const body = t.rows(owners.map((o) => {
      const vm = o.owner !== "host" && o.owner !== "deleted";
      return ["", count(o.pages), bytes(o.bytes), percent(o.pages / used), ratio(o.huge_ratio), ratio(o.scatter_ratio), vm ? bytes(o.resident_bytes) : "—", vm ? bytes(o.memory_bytes) : "—", vm ? (o.residual_bytes < 0 ? "−" : "") + bytes(Math.abs(o.residual_bytes)) : "—"];
    }));
    owners.forEach((o, i) => {
      const cell = body.children[i].children[0];
      if (cell.firstElementChild?.dataset.owner === o.owner) return;
      cell.replaceChildren(el("button", { type: "button", class: "link", "data-owner": o.owner, title: "Show on the map", onclick: (e) => onChoose(e.currentTarget.dataset.owner) }, o.name));
    });
  } };
}

const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
const csvOf = (owners) => ["owner,name,pages,bytes,huge_ratio,scatter_ratio,resident_bytes,memory_bytes,residual_bytes",
  ...owners.map((o) => [o.owner, quoted(o.name), o.pages, o.bytes, o.huge_ratio ?? "", o.scatter_ratio ?? "", o.resident_bytes, o.memory_bytes, o.residual_bytes].join(","))].join("\n") + "\n";
