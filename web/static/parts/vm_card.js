// A VM as a card: what it uses of what it may, and what can be done with it.
import { el, level, set } from "/lib/dom.js";
import { bits, bytes, cores, percent, span } from "/lib/format.js";
import { now, samples } from "/lib/live.js";
import { idleText } from "/parts/idle.js";
import { vmAction } from "/parts/vm_actions.js";

const vmTone = { running: "good", frozen: "warn", creating: "warn", deleting: "warn", failed: "bad" };

export function vmCard(vm, linked = true) {
  const button = (text, act, kind = "") => el("button", { class: "small " + kind, type: "button", "data-k": act, onclick: () => vmAction(act, vm.id) }, text);
  return el("article", { class: "card" },
    el("header", {}, el("h3", {}, linked ? el("a", { href: "/vms/" + encodeURIComponent(vm.id), "data-k": "name" }) : el("span", { "data-k": "name" })), el("span", { class: "state", "data-k": "state" })),
    meter("CPU", "cpu"), el("canvas", { class: "spark", height: 30, "aria-hidden": "true" }), meter("Memory", "memory"), meter("Storage", "storage"), meter("Network", "network"), meter("Processes", "pids"),
    el("p", { class: "facts" }, el("span", { "data-k": "cloudlets" }), el("span", { "data-k": "io" }), el("span", { "data-k": "address" }), el("span", { "data-k": "age" })),
    el("p", { class: "facts idle-facts" }, el("span", { "data-k": "idle" }), button("Keep", "keep"), button("Stop keeping", "unkeep")),
    el("p", { class: "field-error", "data-k": "reason" }),
    el("div", { class: "actions" }, button("Resize", "resize"), button("Freeze", "freeze"), button("Thaw", "thaw"), button("Delete", "delete")));
}

function meter(label, key) {
  return el("div", { class: "meter" }, el("span", {}, label), el("progress", { max: 1, "aria-label": label, id: undefined, "data-bar": key }), el("span", { class: "amount", "data-k": key }));
}

export function updateVM(node, vm) {
  const idle = vm.state === "running" && vm.idle_since;
  set(node, "name", vm.name);
  set(node, "state", idle ? "idle" : vm.state).className = "state " + (idle ? "idle" : vmTone[vm.state] ?? "");
  const bar = (key, used, limit, text) => {
    set(node, key, text);
    level(node.querySelector(`[data-bar="${key}"]`), limit ? used / limit : 0);
  };
  const { usage: u, limits: l } = vm;
  bar("cpu", u.cpus, l.cpus, `${u.cpus.toFixed(2)} of ${cores(l.cpus)} cores${u.cpu_pressure > 0.1 ? `, waiting ${percent(u.cpu_pressure)}` : ""}`);
  bar("memory", u.memory_bytes, l.memory_bytes, `${bytes(u.memory_bytes)} of ${l.memory_bytes ? bytes(l.memory_bytes) : "no limit"}${u.oom_kills ? `, ${u.oom_kills} OOM kills` : ""}`);
  bar("storage", u.storage_bytes, l.storage_bytes, `${bytes(u.storage_bytes)} of ${l.storage_bytes ? bytes(l.storage_bytes) : "no limit"}`);
  const [down, up] = traffic(samples(vm.id));
  bar("network", Math.max(down, up), l.bandwidth_bps, vm.network.mode === "isolated" ? "none" : `${bits(down)} in, ${bits(up)} out of ${l.bandwidth_bps ? bits(l.bandwidth_bps) : "no limit"}`);
  bar("pids", u.pids, l.pids, `${u.pids} of ${l.pids ?? "no limit"}`);
  set(node, "cloudlets", `${vm.cloudlets} cloudlet${vm.cloudlets === 1 ? "" : "s"}`);
  set(node, "io", `${bytes(u.read_bytes)} read, ${bytes(u.written_bytes)} written`);
  set(node, "address", [vm.network.ipv4, ...vm.network.publish.map((p) => `${p.host_port}→${p.guest_port}${p.protocol === "udp" ? "/udp" : ""}`), ...(vm.gpus ?? []).map((g) => g.name)].filter(Boolean).join(" · "));
  set(node, "age", `up ${span((now() - Date.parse(vm.created_at)) / 1000)}`);
  node.querySelector(".idle-facts").hidden = !set(node, "idle", idleText(vm)).textContent;
  node.querySelector('[data-k="keep"]').hidden = !idle || !vm.autoscale.idle_after_seconds;
  node.querySelector('[data-k="unkeep"]').hidden = !vm.autoscale.keep;
  set(node, "reason", vm.reason ?? "");
  node.querySelector('[data-k="freeze"]').hidden = vm.state !== "running";
  node.querySelector('[data-k="thaw"]').hidden = vm.state !== "frozen";
  node.querySelector('[data-k="resize"]').disabled = vm.state !== "running" && vm.state !== "frozen";
  node.querySelector('[data-k="delete"]').disabled = vm.state === "deleting" || vm.state === "creating";
  spark(node.querySelector("canvas"), samples(vm.id), l.cpus ?? 1);
}

// traffic is what a VM receives and sends, in bits per second, over the last sample.
function traffic(past) {
  if (past.length < 2) return [0, 0];
  const [a, b] = past.slice(-2), seconds = (Date.parse(b.at) - Date.parse(a.at)) / 1000;
  const rate = (key) => (seconds > 0 ? Math.max(0, ((b[key] - a[key]) * 8) / seconds) : 0);
  return [rate("received_bytes"), rate("sent_bytes")];
}

// spark draws the last two minutes of CPU against the limit.
function spark(canvas, points, limit) {
  const scale = devicePixelRatio || 1, width = canvas.clientWidth * scale, height = 30 * scale;
  if (!width) return;
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  const style = getComputedStyle(canvas), top = Math.max(limit, ...points.map((p) => p.cpus), 0.01);
  const y = (v) => height - 2 * scale - (v / top) * (height - 4 * scale);
  pen.strokeStyle = style.getPropertyValue("--line");
  pen.lineWidth = scale;
  pen.beginPath(); pen.moveTo(0, y(limit)); pen.lineTo(width, y(limit)); pen.stroke();
  pen.strokeStyle = style.getPropertyValue("--accent");
  pen.lineWidth = 1.5 * scale;
  pen.beginPath();
  const x = (i) => width - ((points.length - 1 - i) / 119) * width;
  points.forEach((p, i) => pen.lineTo(x(i), y(p.cpus)));
  pen.stroke();
  if (points.length < 2) return;
  pen.lineTo(width, height); pen.lineTo(x(0), height);
  pen.globalAlpha = 0.15;
  pen.fillStyle = pen.strokeStyle;
  pen.fill();
  pen.globalAlpha = 1;
}
