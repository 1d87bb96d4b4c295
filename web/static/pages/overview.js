// The first page: the host, its VMs, their cloudlets, the last events.
import { $, el, reconcile, section, write } from "/lib/dom.js";
import { schedule, state } from "/lib/live.js";
import { openCloudlet } from "/parts/cloudlet_form.js";
import { cloudletTable } from "/parts/cloudlets.js";
import { eventList } from "/parts/events.js";
import { hostCharts } from "/parts/host_charts.js";
import { drawTiles } from "/parts/tiles.js";
import { updateVM, vmCard } from "/parts/vm_card.js";
import { openVM } from "/parts/vm_form.js";

const mostCards = 60, searchFrom = 12; // VMs

export function open(root, _, query) {
  const charts = hostCharts(query.get("range"));
  const tiles = el("section", { class: "tiles", id: "tiles", "aria-label": "Host" });
  const cards = el("div", { class: "cards", id: "vms" });
  const search = el("input", { type: "search", id: "vm-search", class: "find", placeholder: "Find VM", "aria-label": "Find VM by name, id or state", autocomplete: "off", spellcheck: false, hidden: true, oninput: () => schedule() });
  const more = el("p", { class: "muted small-text under", id: "vms-more", role: "status" });
  const noVM = el("p", { class: "empty", id: "vms-empty", hidden: true }, "No VM yet. Create one here, or with ", el("code", {}, "cloudflash vm create web --cpus 1 --memory 512MiB"), ".");
  const noCloudlet = el("p", { class: "empty", id: "cloudlets-empty", hidden: true }, "No cloudlet yet. Submit one here, or with ", el("code", {}, "cloudflash cloudlet run -- hostname"), ".");
  const table = cloudletTable(), events = eventList();
  root.append(el("h1", { class: "sr", tabIndex: -1 }, "Overview"), tiles, charts.node,
    counted("VMs", "vms", search, el("button", { type: "button", class: "primary", id: "new-vm", onclick: () => openVM(null) }, "Create VM"), cards, more, noVM),
    counted("Cloudlets", "cloudlets", el("button", { type: "button", class: "primary", id: "new-cloudlet", onclick: () => openCloudlet() }, "Submit cloudlet"), table.node, noCloudlet),
    section("Events", "events-title", events.node));
  return {
    frame: charts.frame, resumed: charts.resumed, close: charts.close,
    query: (q) => charts.query(q.get("range")),
    draw() {
      drawTiles(tiles, state.host);
      const found = find(search.value), shown = found.slice(0, mostCards);
      reconcile(cards, shown, vmCard, updateVM);
      search.hidden = state.vms.length < searchFrom && !search.value;
      write(more, found.length > shown.length ? `and ${found.length - shown.length} more: find them by name, id or state` : search.value && !found.length ? "No VM is like that." : "");
      write($("vms-count"), state.vms.length);
      noVM.hidden = state.vms.length > 0;
      table.update(state.cloudlets);
      write($("cloudlets-count"), state.cloudlets.length);
      noCloudlet.hidden = state.cloudlets.length > 0;
      events.update(state.events);
      charts.draw();
    },
  };
}

function find(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return words.length ? state.vms.filter((vm) => words.every((w) => `${vm.name} ${vm.id} ${vm.idle_since ? "idle" : vm.state}`.toLowerCase().includes(w))) : state.vms;
}

// counted is a part of the page with a number beside its title and its controls in the same line.
function counted(title, id, ...rest) {
  const head = rest.filter((node) => node.matches("button, input")), children = rest.filter((node) => !head.includes(node));
  return el("section", { "aria-labelledby": id + "-title" },
    el("div", { class: "section-head" }, el("h2", { id: id + "-title" }, title + " ", el("span", { class: "count", id: id + "-count" })), ...head), ...children);
}
