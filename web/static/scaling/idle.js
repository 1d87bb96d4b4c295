// VMs that are about to be deleted because nothing happens in them.
import { el, reconcile, set, write } from "/lib/dom.js";
import { span } from "/lib/format.js";
import { now, state } from "/lib/live.js";
import { keepVM } from "/parts/vm_actions.js";
import { source } from "/scaling/policy.js";
import { seconds } from "/scaling/units.js";

const soon = 10, mostRows = 50; // seconds, VMs

export function idleList() {
  const rule = el("p", { class: "muted", id: "idle-rule" });
  const list = el("ul", { class: "countdowns", id: "countdowns" }), none = el("p", { class: "empty", id: "idle-empty" }), more = el("p", { class: "muted small-text under" });
  const spoken = el("p", { class: "sr", role: "status" }), told = new Set();
  let whole = 1; // seconds of notice
  return { node: el("div", {}, rule, list, more, none, spoken),
    show(policy) {
      const { after_seconds: after, notice_seconds: notice, min_vms: least, sources = {} } = policy;
      whole = Math.max(1, notice);
      const of = (key) => ` (${source(sources[key])})`;
      const stay = least ? `The last ${least === 1 ? "running VM stays" : `${least} running VMs stay`}` : "No minimum of VMs is kept";
      write(rule, after <= 0 ? `Idle VMs are not deleted${of("after_seconds")}.`
        : `A VM without cloudlets, sessions or activity for ${seconds(after)}${of("after_seconds")} is announced, and deleted ${seconds(notice)} later${of("notice_seconds")} unless it gets busy. ${stay}${of("min_vms")}.`);
    },
    draw(chosen) {
      const due = state.vms.filter((vm) => vm.autoscale?.delete_at).sort((a, b) => Date.parse(a.autoscale.delete_at) - Date.parse(b.autoscale.delete_at));
      reconcile(list, due.slice(0, mostRows), row, (node, vm) => fill(node, vm, whole));
      list.hidden = !due.length;
      none.hidden = due.length > 0;
      write(more, due.length > mostRows ? `and ${due.length - mostRows} more` : "");
      const kept = state.vms.filter((vm) => vm.autoscale?.keep).map((vm) => vm.name);
      write(none, `No VM is about to be deleted.${kept.length ? ` Kept, idle or not: ${kept.slice(0, 20).join(", ")}${kept.length > 20 ? " …" : ""}.` : ""}`);
      for (const vm of due) tell(vm);
    } };

  // tell says once that little time is left.
  function tell(vm) {
    const left = (Date.parse(vm.autoscale.delete_at) - now()) / 1000, key = vm.id + vm.autoscale.delete_at;
    if (left > soon || told.has(key)) return;
    told.add(key);
    write(spoken, `${vm.name} is deleted in ${Math.max(0, Math.round(left))} seconds.`);
  }
}

function row(vm) {
  return el("li", { class: "countdown" }, el("a", { href: "/vms/" + encodeURIComponent(vm.id) }, vm.name), el("span", { class: "state warn" }, "idle"),
    el("span", { class: "muted", "data-k": "since" }), el("progress", { max: 1, "aria-label": `Time left of ${vm.name}` }), el("strong", { class: "left", "data-k": "left" }),
    state.role === "viewer" ? null : el("button", { type: "button", class: "small", "aria-label": `Keep ${vm.name}`, onclick: () => keepVM(vm.id) }, "Keep"));
}

function fill(node, vm, whole) {
  const left = (Date.parse(vm.autoscale.delete_at) - now()) / 1000;
  set(node, "since", vm.idle_since ? `for ${span((now() - Date.parse(vm.idle_since)) / 1000)}` : "");
  set(node, "left", left > 0 ? `deleted in ${left < 60 ? `${Math.ceil(left)} s` : span(left)}` : "being deleted");
  node.querySelector("progress").value = Math.max(0, Math.min(1, left / whole));
}
