// The dialog that submits cloudlets.
import { call } from "/lib/api.js";
import { $, el } from "/lib/dom.js";
import { state } from "/lib/live.js";
import { clearErrors, send } from "/parts/form.js";

const MiB = 2 ** 20;

export function openCloudlet(vm = "") {
  clearErrors($("cloudlet-form"));
  const select = $("c-vm");
  select.replaceChildren(el("option", { value: "" }, "choose for me"), ...state.vms.map((vm) => el("option", { value: vm.id }, vm.name)));
  select.value = vm;
  $("cloudlet-dialog").showModal();
}

$("cloudlet-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = new FormData($("cloudlet-form")), body = { sla: Number(form.get("sla")), on_deadline: form.get("on_deadline") };
  const command = form.get("command").trim();
  if (command) body.argv = ["/bin/sh", "-c", command];
  if (form.get("name")) body.name = form.get("name");
  if (form.get("vm")) body.vm = form.get("vm");
  if (form.get("deadline")) body.deadline_seconds = Number(form.get("deadline"));
  const request = {};
  if (form.get("cpus")) request.cpus = Number(form.get("cpus"));
  if (form.get("memory")) request.memory_bytes = Number(form.get("memory")) * MiB;
  if (Object.keys(request).length) body.request = request;
  send($("cloudlet-form"), $("cloudlet-dialog"), () => call("POST", "/cloudlets", body));
});
