// One VM: its charts, what it was given and what the kernel has, its cloudlets.
import { call } from "/lib/api.js";
import { $, el, section, write } from "/lib/dom.js";
import { bits, bytes, clock, cores } from "/lib/format.js";
import { schedule, state } from "/lib/live.js";
import { openCloudlet } from "/parts/cloudlet_form.js";
import { cloudletTable } from "/parts/cloudlets.js";
import { eventList } from "/parts/events.js";
import { updateVM, vmCard } from "/parts/vm_card.js";
import { vmCharts } from "/parts/vm_charts.js";

const find = (ref) => state.vms.find((vm) => vm.id === ref || vm.name === ref);

export function open(root, [ref], query) {
  let body = null, gone = null, closed = false;
  const page = {
    title: find(ref)?.name ?? ref,
    draw() {
      const vm = find(ref);
      if (vm) {
        gone?.remove();
        gone = null;
        body ??= show(root, vm, query);
      }
      if (!vm && !gone && state.frameAt) { // also when it goes while it is looked at: what was last seen stays below
        gone = el("section", {}, el("h1", { tabIndex: -1 }, body ? "This VM is gone" : "No such VM"), el("p", { class: "empty", id: "vm-gone" }, `Looking for ${ref}…`));
        root.prepend(gone);
        explain(ref, () => closed);
      }
      body?.draw(vm);
    },
    frame: (topic) => body?.frame(topic),
    resumed: () => body?.resumed(),
    query: (q) => body?.query(q),
    close() { closed = true; body?.close(); },
  };
  schedule();
  return page;
}

// explain says what is known of a VM that is not there.
async function explain(ref, closed) {
  let text = `No VM is called ${ref}.`;
  try { await call("GET", "/vms/" + encodeURIComponent(ref)); } catch (refusal) { text = refusal.message; }
  if (closed() || !$("vm-gone")) return;
  const past = state.events.filter((e) => e.vm === ref).slice(-5).reverse();
  $("vm-gone").replaceChildren(text + " ", ...past.map((e) => el("span", { class: "block" }, `${clock(e.at)} ${e.message}`)), el("a", { href: "/" }, "All VMs"));
}

function show(root, first, query) {
  const id = first.id, table = cloudletTable(), events = eventList(30);
  const charts = vmCharts(id, () => state.vms.find((vm) => vm.id === id), query.get("range"));
  const card = vmCard(first, false), limits = el("tbody");
  const none = el("p", { class: "empty", hidden: true }, "No cloudlet here. Submit one, or run ", el("code", {}, `cloudflash cloudlet run --vm ${first.name} -- hostname`), ".");
  const heading = el("h1", { tabIndex: -1 }, first.name);
  root.append(el("nav", { class: "crumbs", "aria-label": "Breadcrumb" }, el("a", { href: "/" }, "VMs"), " / ", el("span", { "aria-current": "page" }, first.name)), heading,
    el("div", { class: "split" }, charts.node, el("div", { class: "side" }, card,
      section("Limits", "limits-title", el("div", { class: "scroll" }, el("table", { class: "tight" }, el("thead", {}, el("tr", {}, el("th", {}, el("span", { class: "sr" }, "What")), el("th", { class: "num" }, "asked for"), el("th", { class: "num" }, "in the kernel"))), limits))),
      el("a", { class: "more", href: "/memory?mode=owner&vm=" + encodeURIComponent(id) }, "Its pages on the memory map"))),
    el("section", { "aria-labelledby": "cloudlets-title" }, el("div", { class: "section-head" }, el("h2", { id: "cloudlets-title" }, "Cloudlets"),
      el("button", { type: "button", class: "primary", onclick: () => openCloudlet(id) }, "Submit cloudlet")), table.node, none),
    section("Events", "events-title", events.node));
  return {
    ...charts, query: (q) => charts.query(q.get("range")),
    draw(vm) {
      if (vm) {
        updateVM(card, vm);
        drawLimits(limits, vm);
      }
      card.querySelectorAll("button").forEach((b) => { if (!vm) b.disabled = true; });
      const own = state.cloudlets.filter((c) => c.vm === id);
      table.update(own);
      none.hidden = own.length > 0;
      events.update(state.events.filter((e) => e.vm === id));
      charts.draw();
    },
  };
}

// drawLimits shows what was asked for beside what is read back from the kernel.
function drawLimits(body, { spec, limits, network, gpus, image, id, init_pid }) {
  const rows = [
    ["CPU cores", cores(spec.cpus), cores(limits.cpus)],
    ["Memory", bytes(spec.memory_bytes), orNone(limits.memory_bytes, bytes)],
    ["Slowed down above", "", orNone(limits.memory_high_bytes, bytes)],
    ["Swap", "", orNone(limits.swap_bytes, bytes)],
    ["Storage", bytes(spec.storage_bytes), orNone(limits.storage_bytes, bytes)],
    ["Bandwidth", bits(spec.bandwidth_bps), orNone(limits.bandwidth_bps, bits)],
    ["Processes", spec.pids, orNone(limits.pids, String)],
    ["GPUs", spec.gpus, (gpus ?? []).map((g) => g.name).join(", ") || "none"],
    ["Network", network.mode, [network.ipv4, network.ipv6].filter(Boolean).join(" ") || "—"],
    ["Image", image, ""], ["Id", id, init_pid ? `init is process ${init_pid}` : ""],
  ];
  while (body.children.length < rows.length) body.append(el("tr", {}, el("th", { scope: "row" }), el("td", { class: "num" }), el("td", { class: "num" })));
  rows.forEach((row, i) => row.forEach((text, k) => write(body.children[i].children[k], text)));
}

const orNone = (value, format) => (value === null || value === undefined ? "no limit" : format(value));
