// What a button on a VM does.
import { call } from "/lib/api.js";
import { $ } from "/lib/dom.js";
import { state } from "/lib/live.js";
import { attempt } from "/lib/session.js";
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
  attempt(() => call("PATCH", "/vms/" + encodeURIComponent(id), { keep }));
}

function confirmDelete(vm) {
  $("confirm-title").textContent = `Delete ${vm.name}?`;
  $("confirm-text").textContent = `Its files and the output of its cloudlets go with it.${vm.cloudlets ? ` ${vm.cloudlets} running cloudlet${vm.cloudlets === 1 ? "" : "s"} will be ended.` : ""}`;
  $("confirm-yes").onclick = () => {
    $("confirm-dialog").close();
    attempt(() => call("DELETE", "/vms/" + encodeURIComponent(vm.id)));
  };
  $("confirm-dialog").showModal();
}
