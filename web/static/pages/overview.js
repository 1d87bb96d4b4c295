// The first page: the host, its VMs, their cloudlets, the last events.
import { $, el, reconcile, section, write } from "/lib/dom.js";
import { state } from "/lib/live.js";
import { openCloudlet } from "/parts/cloudlet_form.js";
import { cloudletTable } from "/parts/cloudlets.js";
import { eventList } from "/parts/events.js";
import { hostCharts } from "/parts/host_charts.js";
import { drawTiles } from "/parts/tiles.js";
import { updateVM, vmCard } from "/parts/vm_card.js";
import { openVM } from "/parts/vm_form.js";

export function open(root, _, query) {
  const charts = hostCharts(query.get("range"));
  const tiles = el("section", { class: "tiles", id: "tiles", "aria-label": "Host" });
  const cards = el("div", { class: "cards", id: "vms" });
  const noVM = el("p", { class: "empty", id: "vms-empty", hidden: true }, "No VM yet. Create one here, or with ", el("code", {}, "cloudflash vm create web --cpus 1 --memory 512MiB"), ".");
  const noCloudlet = el("p", { class: "empty", id: "cloudlets-empty", hidden: true }, "No cloudlet yet. Submit one here, or with ", el("code", {}, "cloudflash cloudlet run -- hostname"), ".");
  const table = cloudletTable(), events = eventList();
  root.append(el("h1", { class: "sr", tabIndex: -1 }, "Overview"), tiles, charts.node,
    counted("VMs", "vms", el("button", { type: "button", class: "primary", id: "new-vm", onclick: () => openVM(null) }, "Create VM"), cards, noVM),
    counted("Cloudlets", "cloudlets", el("button", { type: "button", class: "primary", id: "new-cloudlet", onclick: () => openCloudlet() }, "Submit cloudlet"), table.node, noCloudlet),
    section("Events", "events-title", events.node));
  return {
    frame: charts.frame, resumed: charts.resumed, close: charts.close,
    query: (q) => charts.query(q.get("range")),
    draw() {
      drawTiles(tiles, state.host);
      reconcile(cards, state.vms, vmCard, updateVM);
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

function counted(title, id, button, ...children) {
  return el("section", { "aria-labelledby": id + "-title" },
    el("div", { class: "section-head" }, el("h2", { id: id + "-title" }, title + " ", el("span", { class: "count", id: id + "-count" })), button), ...children);
}
