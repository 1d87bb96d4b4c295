// How all VMs stand, where none is chosen.
import { el, reconcile, section, set, write } from "/lib/dom.js";
import { amount, modeName, modeTone, nameOf } from "/scaling/units.js";

const mostRows = 100, shown = ["cpus", "memory_bytes", "storage_bytes", "bandwidth_bps"];

const columns = ["VM", "Mode", ...shown.map(nameOf), "Changes"];

export function sizes() {
  const body = el("tbody", { id: "sizes" });
  const node = el("div", { class: "scroll", hidden: true, tabIndex: 0, role: "region", "aria-label": "Sizes of VMs" }, el("table", { class: "tight stack" },
    el("thead", {}, el("tr", {}, ...columns.map((text) => el("th", { scope: "col" }, text)))), body));
  const none = el("p", { class: "empty", id: "sizes-empty" }, "Asking the agent…"), more = el("p", { class: "muted small-text under" });
  return { node: section("Sizes", "size-title", node, none, more), draw(status) {
    if (!status) return;
    const list = status.vms.slice(0, mostRows);
    reconcile(body, list.map((vm) => ({ ...vm, id: vm.vm })), row, fill);
    node.hidden = !list.length;
    none.hidden = list.length > 0;
    if (!list.length) none.replaceChildren("No VM yet. Create one on the ", el("a", { href: "/" }, "overview"), ", or with ", el("code", {}, "cloudflash vm create web --cpus 1 --memory 512MiB"), ".");
    write(more, status.vms.length > list.length ? `and ${status.vms.length - list.length} more: choose one above` : list.length ? "Choose a VM to see its size over time." : "");
  } };
}

function row(vm) {
  const node = el("tr", {}, el("td", { class: "name" }, el("a", { href: "/autoscaling?vm=" + encodeURIComponent(vm.vm), "data-k": "name" })), el("td", {}, el("span", { "data-k": "mode" })),
    ...shown.map((r) => el("td", {}, el("span", { "data-k": r }), el("small", { class: "block", "data-k": r + "-state" }))), el("td", { "data-k": "changes" }));
  columns.forEach((label, k) => { node.children[k].dataset.label = label; });
  return node;
}

function fill(node, vm) {
  set(node, "name", vm.vm_name);
  set(node, "mode", modeName[vm.mode] ?? vm.mode).className = "state " + (modeTone[vm.mode] ?? "");
  set(node, "changes", `${vm.changes_last_hour} of ${vm.changes_per_hour} an hour`);
  for (const r of shown) {
    const of = vm.resources.find((s) => s.resource === r);
    set(node, r, of ? `${amount(r, of.use)} of ${amount(r, of.limit)}` : "—");
    set(node, r + "-state", of ? `${of.state.replaceAll("_", " ")}; asked for ${amount(r, of.spec)}` : "");
  }
}
