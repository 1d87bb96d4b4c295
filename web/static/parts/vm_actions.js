// What a button on a VM does.
import { call } from "/lib/api.js";
import { state } from "/lib/live.js";
import { attempt } from "/lib/session.js";
import { ask } from "/parts/confirm.js";
import { openVM } from "/parts/vm_form.js";

export function vmAction(act, id) {
  const vm = state.vms.find((v) => v.id === id);
  if (!vm) return;
  if (act === "resize") return openVM(vm);
  if (act === "delete") return confirmDelete(vm);
  if (act === "keep" || act === "unkeep") return keepVM(id, act === "keep");
  attempt(() => call("POST", `/vms/${encodeURIComponent(id)}/actions/${act}`));
}

// keepVM saves a VM from being deleted when idle, or with false takes that back.
export function keepVM(id, keep = true) {
  return attempt(() => call("PATCH", "/vms/" + encodeURIComponent(id), { keep }));
}

function confirmDelete(vm) {
  const lost = vm.cloudlets ? ` ${vm.cloudlets} running cloudlet${vm.cloudlets === 1 ? "" : "s"} will be ended.` : "";
  ask({ title: `Delete ${vm.name}?`, text: "Its files and the output of its cloudlets go with it." + lost, yes: "Delete", no: "Keep", danger: true },
    () => attempt(() => call("DELETE", "/vms/" + encodeURIComponent(vm.id))));
}
