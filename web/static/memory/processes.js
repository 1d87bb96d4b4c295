// From a VM's pages to those of one process, and to what it has mapped where.
import { call } from "/lib/api.js";
import { el, write } from "/lib/dom.js";
import { bytes, percent } from "/lib/format.js";
import { state } from "/lib/live.js";
import { attempt } from "/lib/session.js";
import { table } from "/memory/tables.js";

const mostMappings = 200;
const count = (n) => n.toLocaleString("en");

// processes makes the section; choose says of which VM, "" and what is no VM hide it.
export function processes() {
  const title = el("h2", { id: "processes-title" }), detail = el("h3", { id: "mappings-title" });
  const list = table("processes", "Processes", [["Process"], ["Belongs to"], ["Resident", "num"]]);
  const maps = table("mappings", "Mappings", [["Mapping"], ["Access"], ["Size", "num"], ["Present", "num"], ["Its own", "num", "of the present, what no other process maps"], ["Runs", "num", "of adjacent page frames"], ["Longest", "num"], ["In huge pages", "num"]]);
  const more = el("div", { class: "under mappings", hidden: true }, detail, maps.node);
  const node = el("section", { "aria-labelledby": "processes-title", hidden: true }, el("div", { class: "section-head" }, title), list.node, more);
  let vm = "";

  async function read(name) {
    const asked = vm;
    if (!asked) return;
    write(title, `Processes of ${name(asked)}`);
    const answer = await call("GET", `/memory/owners/${encodeURIComponent(asked)}/processes`).catch(() => ({ processes: [] })); // it was deleted: the page says so elsewhere
    if (asked !== vm) return;
    const all = answer.processes.sort((a, b) => b.resident_bytes - a.resident_bytes), cloudlets = new Map(state.cloudlets.map((c) => [c.id, c.name]));
    const body = list.rows(all.map((p) => ["", p.scope === "init" ? "the VM's init" : `cloudlet ${cloudlets.get(p.scope) ?? p.scope}`, bytes(p.resident_bytes)]));
    all.forEach((p, i) => {
      const cell = body.children[i].children[0], text = `${p.name} (${p.pid})`;
      if (cell.firstElementChild?.textContent !== text) cell.replaceChildren(el("button", { type: "button", class: "link", title: "Show its mappings", onclick: () => attempt(() => open(asked, p.pid)) }, text));
    });
    node.hidden = !all.length;
  }

  async function open(of, pid) {
    const p = await call("GET", `/memory/owners/${encodeURIComponent(of)}/processes/${pid}`);
    if (of !== vm) return;
    const all = (p.mappings ?? []).filter((m) => m.present || m.swapped).sort((a, b) => b.present - a.present), shown = all.slice(0, mostMappings);
    const empty = (p.mappings ?? []).length - all.length;
    write(detail, `Mappings of ${p.name} (${p.pid})${all.length > shown.length ? `, the ${shown.length} largest of ${all.length}` : ""}${empty ? `; ${empty} more have nothing in memory` : ""}${p.truncated ? "; more is mapped than was looked at or is listed" : ""}`);
    maps.rows(shown.map((m) => [m.name || "memory without a name", m.permissions, `${count(m.pages)} page${m.pages === 1 ? "" : "s"}`, `${count(m.present)}${m.swapped ? `, ${count(m.swapped)} swapped` : ""}`, count(m.exclusive), count(m.runs), count(m.largest_run), m.present ? percent(m.huge_pages / m.present) : "—"]));
    more.hidden = false;
  }

  return { node, read, choose(owner) {
    const next = owner === "host" || owner === "deleted" ? "" : owner;
    if (next === vm) return;
    vm = next;
    node.hidden = more.hidden = true;
  } };
}
