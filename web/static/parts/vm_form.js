// The dialog that creates and resizes VMs.
import { call } from "/lib/api.js";
import { $, el } from "/lib/dom.js";
import { bits, bytes, cores } from "/lib/format.js";
import { state } from "/lib/live.js";
import { clearErrors, send } from "/parts/form.js";

// Sliders over several powers of two or ten: the position is the logarithm.
const logSlider = (low, high) => ({
  to: (value) => Math.round((Math.log(value / low) / Math.log(high / low)) * 100),
  from: (position) => (position <= 0 ? low : position >= 100 ? high : low * (high / low) ** (position / 100)),
});
const MiB = 2 ** 20, GiB = 2 ** 30;
const sliders = {
  memory: { ...logSlider(32 * MiB, 256 * GiB), field: "memory_bytes", show: bytes, round: (v) => Math.round(v / (32 * MiB)) * 32 * MiB },
  storage: { ...logSlider(64 * MiB, 10240 * GiB), field: "storage_bytes", show: bytes, round: (v) => Math.round(v / (64 * MiB)) * 64 * MiB },
  bandwidth: { ...logSlider(1e6, 1e10), field: "bandwidth_bps", show: bits, round: (v) => Math.round(v / 1e6) * 1e6 },
};
const presets = [["Small", 0.5, 512 * MiB], ["Medium", 1, 1 * GiB], ["Large", 2, 4 * GiB], ["XL", 4, 8 * GiB]];
let editing = null;
const chosen = {};

function choose(name, value) {
  const slider = sliders[name];
  chosen[name] = slider.round(value);
  $("vm-" + name).value = slider.to(value);
  $(`vm-${name}-out`).textContent = slider.show(chosen[name]);
}

function chooseCPUs(value) {
  $("vm-cpus").value = value;
  $("vm-cpus-out").textContent = cores(value);
}

for (const name of Object.keys(sliders)) $("vm-" + name).addEventListener("input", (e) => {
  chosen[name] = sliders[name].round(sliders[name].from(Number(e.target.value)));
  $(`vm-${name}-out`).textContent = sliders[name].show(chosen[name]);
});
$("vm-cpus").addEventListener("input", (e) => chooseCPUs(Number(e.target.value)));
for (const [label, cpus, memory] of presets) {
  $("presets").append(el("button", { type: "button", class: "small", onclick: () => { chooseCPUs(cpus); choose("memory", memory); } }, `${label} · ${cpus} · ${bytes(memory)}`));
}

export function openVM(vm) {
  editing = vm;
  clearErrors($("vm-form"));
  $("vm-dialog-title").textContent = vm ? `Resize ${vm.name}` : "Create VM";
  $("vm-submit").textContent = vm ? "Resize" : "Create";
  $("vm-form").querySelector('[data-field="name"]').hidden = Boolean(vm);
  $("vm-name").value = "";
  const spec = vm?.spec ?? { cpus: 1, memory_bytes: 512 * MiB, storage_bytes: 10 * GiB, bandwidth_bps: 1e8, pids: 4096 };
  chooseCPUs(spec.cpus);
  choose("memory", spec.memory_bytes);
  choose("storage", spec.storage_bytes);
  choose("bandwidth", spec.bandwidth_bps);
  $("vm-pids").value = spec.pids;
  $("vm-fixed").hidden = Boolean(vm); // cannot be changed later
  $("vm-network").value = "nat";
  $("vm-publish").value = "";
  $("vm-gpus").value = 0;
  $("vm-gpus").max = state.host?.capacity.gpus ?? 0;
  $("vm-gpus").disabled = !state.host?.capacity.gpus;
  $("vm-gpus").title = state.host?.capacity.gpus ? "" : "no GPU here";
  $("vm-dialog").showModal();
}

$("vm-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const body = { cpus: Number($("vm-cpus").value), pids: Number($("vm-pids").value) };
  for (const name of Object.keys(sliders)) body[sliders[name].field] = chosen[name];
  if (!editing) {
    if ($("vm-name").value) body.name = $("vm-name").value;
    body.network = { mode: $("vm-network").value };
    const ports = $("vm-publish").value.split(/[\s,]+/).filter(Boolean);
    if (ports.length) body.network.publish = ports.map(port);
    if (Number($("vm-gpus").value)) body.gpus = Number($("vm-gpus").value);
  }
  send($("vm-form"), $("vm-dialog"), () => (editing ? call("PATCH", "/vms/" + encodeURIComponent(editing.id), changes(editing.spec, body)) : call("POST", "/vms", body)));
});

// port reads 8080:80/udp. What makes no sense the agent refuses, with the field.
function port(text) {
  const [ports, protocol] = text.split("/");
  const [host, guest] = ports.split(":");
  return { host_port: Number(host) || 0, guest_port: Number(guest ?? host) || 0, ...(protocol ? { protocol } : {}) };
}

const changes = (old, body) => Object.fromEntries(Object.entries(body).filter(([key, value]) => old[key] !== value));
