import { Stream, call, follow } from "/api.js";
import { bits, bytes, clock, cores, percent, span } from "/format.js";

const $ = (id) => document.getElementById(id);
const state = { host: null, vms: [], cloudlets: [], events: [], history: new Map(), frameAt: 0, offset: 0 };
let stream = null;

// el makes an element. Text goes in as text: nothing from the agent is ever HTML.
function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

const now = () => Date.now() + state.offset; // the host's clock, not the browser's

// ---- session

async function begin() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (code) {
    history.replaceState(null, "", "/"); // used up: keep it out of the history
    try { await call("POST", "/login", { code }); } catch (refusal) { return showLogin(refusal.message); }
  }
  try {
    state.host = await call("GET", "/host");
  } catch (refusal) {
    if (refusal.problem.status === 401) return showLogin("");
    setLink("lost");
    return setTimeout(begin, 2000);
  }
  showBoard();
}

function showLogin(error) {
  stream?.stop();
  stream = null;
  $("login-error").textContent = error;
  $("login").hidden = false;
  $("board").hidden = true;
  $("logout").hidden = true;
  $("link").hidden = true;
  $("code").focus();
}

function showBoard() {
  $("login").hidden = true;
  $("board").hidden = false;
  $("logout").hidden = false;
  $("link").hidden = false;
  stream?.stop();
  stream = new Stream(["host", "vms", "cloudlets", "events"], onFrame, onLink);
  stream.start();
  draw();
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const code = $("code").value.trim().replace(/^.*#code=/, "");
  try {
    await call("POST", "/login", { code });
    $("code").value = "";
    begin();
  } catch (refusal) {
    $("login-error").textContent = refusal.message;
  }
});

$("logout").addEventListener("click", async () => {
  try { await call("POST", "/logout"); } catch { /* over either way */ }
  showLogin("");
});

// ---- live data

function onFrame(frame) {
  state.frameAt = Date.now();
  state.offset = frame.t - Date.now();
  if (frame.topic === "events" && frame.kind === "append") {
    const known = state.events.length ? state.events[state.events.length - 1].seq : 0;
    state.events = state.events.concat(frame.data.filter((e) => e.seq > known)).slice(-200);
  } else {
    state[frame.topic] = frame.data ?? [];
  }
  if (frame.topic === "vms") remember(frame.data);
  schedule();
}

function remember(vms) {
  const alive = new Set();
  for (const vm of vms) {
    alive.add(vm.id);
    const past = state.history.get(vm.id) ?? [];
    if (!past.length || past[past.length - 1].at !== vm.usage.at) past.push({ at: vm.usage.at, cpus: vm.usage.cpus, received: vm.usage.received_bytes, sent: vm.usage.sent_bytes });
    state.history.set(vm.id, past.slice(-120));
  }
  for (const id of state.history.keys()) if (!alive.has(id)) state.history.delete(id);
}

let lost = 0;
async function onLink(link) {
  setLink(link);
  if (link !== "lost") { lost = 0; return; }
  if (++lost < 2) return;
  try { await call("GET", "/host"); } catch (refusal) { if (refusal.problem.status === 401) showLogin("Your session is over."); }
}

function setLink(link) {
  const pill = $("link");
  pill.dataset.link = link;
  pill.className = "pill " + { live: "good", connecting: "warn", lost: "bad" }[link];
  pill.textContent = { live: "live", connecting: "connecting…", lost: "reconnecting…" }[link];
}

setInterval(() => { // say so when numbers are old, whatever the socket claims
  if (!state.frameAt || $("board").hidden) return;
  const age = (Date.now() - state.frameAt) / 1000;
  if (age > 5) {
    $("link").className = "pill bad";
    $("link").textContent = `stale, ${span(age)} old`;
  }
  schedule();
}, 1000);

let scheduled = false;
function schedule() {
  if (scheduled || document.hidden) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; draw(); });
}
document.addEventListener("visibilitychange", schedule);

// ---- drawing

function draw() {
  if ($("board").hidden) return;
  drawHost();
  reconcile($("vms"), state.vms, vmCard, updateVM);
  $("vms-count").textContent = state.vms.length;
  $("vms-empty").hidden = state.vms.length > 0;
  reconcile($("cloudlets"), [...state.cloudlets].sort((a, b) => isOver(a) - isOver(b)).slice(0, 100), cloudletRow, updateCloudlet);
  $("cloudlets-count").textContent = state.cloudlets.length;
  $("cloudlets-empty").hidden = state.cloudlets.length > 0;
  $("cloudlets").closest(".scroll").hidden = state.cloudlets.length === 0;
  drawEvents();
}

// reconcile keeps the elements of what is still there, so that focus and
// pressed buttons survive a new frame.
function reconcile(parent, items, make, update) {
  const old = new Map([...parent.children].map((node) => [node.dataset.id, node]));
  let previous = null;
  for (const item of items) {
    const node = old.get(item.id) ?? make(item);
    old.delete(item.id);
    node.dataset.id = item.id;
    update(node, item);
    const next = previous ? previous.nextSibling : parent.firstChild;
    if (next !== node) parent.insertBefore(node, next);
    previous = node;
  }
  for (const node of old.values()) node.remove();
}

function set(node, key, text) {
  const target = node.querySelector(`[data-k="${key}"]`);
  if (target.textContent !== text) target.textContent = text;
  return target;
}

function level(bar, ratio) {
  bar.value = Math.min(1, Math.max(0, ratio || 0));
  bar.className = ratio > 0.95 ? "bad" : ratio > 0.8 ? "warn" : "";
}

const tileNames = [["cpu", "CPU"], ["memory", "Memory"], ["storage", "Storage"], ["promised", "Promised to VMs"]];

function drawHost() {
  const host = state.host;
  if (!host) return;
  $("hostname").textContent = `${host.name} · Linux ${host.kernel}`;
  const tiles = $("tiles");
  if (!tiles.children.length) {
    for (const [key, label] of tileNames) {
      tiles.append(el("div", { class: "tile", id: "tile-" + key }, el("span", { class: "label" }, label), el("span", { class: "value", "data-k": "value" }),
        el("progress", { max: 1, "aria-label": label }), el("span", { class: "note", "data-k": "note" })));
    }
  }
  const u = host.usage;
  tile("cpu", percent(u.cpu_ratio), u.cpu_ratio, `${host.cpus} cores, load ${u.load1.toFixed(2)}`);
  tile("memory", bytes(u.memory_used_bytes), u.memory_used_bytes / host.memory_bytes, `of ${bytes(host.memory_bytes)}`);
  tile("storage", bytes(u.storage_used_bytes), u.storage_used_bytes / host.storage_bytes, `of ${bytes(host.storage_bytes)}`);
  tile("promised", bytes(host.reserved.memory_bytes), host.reserved.memory_bytes / host.capacity.memory_bytes,
    `of ${bytes(host.capacity.memory_bytes)}; ${cores(host.reserved.cpus)} of ${cores(host.capacity.cpus)} cores`);
}

function tile(key, value, ratio, note) {
  const node = $("tile-" + key);
  set(node, "value", value);
  set(node, "note", note);
  level(node.querySelector("progress"), ratio);
}

const vmTone = { running: "good", frozen: "warn", creating: "warn", deleting: "warn", failed: "bad" };

function vmCard(vm) {
  const button = (text, act, kind = "") => el("button", { class: "small " + kind, type: "button", "data-k": act, onclick: () => vmAction(act, vm.id) }, text);
  return el("article", { class: "card" },
    el("header", {}, el("h3", { "data-k": "name" }), el("span", { class: "state", "data-k": "state" })),
    meter("CPU", "cpu"), el("canvas", { class: "spark", height: 30, "aria-hidden": "true" }), meter("Memory", "memory"), meter("Storage", "storage"), meter("Network", "network"), meter("Processes", "pids"),
    el("p", { class: "facts" }, el("span", { "data-k": "cloudlets" }), el("span", { "data-k": "io" }), el("span", { "data-k": "address" }), el("span", { "data-k": "age" })),
    el("p", { class: "field-error", "data-k": "reason" }),
    el("div", { class: "actions" }, button("Resize", "resize"), button("Freeze", "freeze"), button("Thaw", "thaw"), button("Delete", "delete")));
}

function meter(label, key) {
  return el("div", { class: "meter" }, el("span", {}, label), el("progress", { max: 1, "aria-label": label, id: undefined, "data-bar": key }), el("span", { class: "amount", "data-k": key }));
}

function updateVM(node, vm) {
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
  const [down, up] = traffic(state.history.get(vm.id) ?? []);
  bar("network", Math.max(down, up), l.bandwidth_bps, vm.network.mode === "isolated" ? "none" : `${bits(down)} in, ${bits(up)} out of ${l.bandwidth_bps ? bits(l.bandwidth_bps) : "no limit"}`);
  bar("pids", u.pids, l.pids, `${u.pids} of ${l.pids ?? "no limit"}`);
  set(node, "cloudlets", `${vm.cloudlets} cloudlet${vm.cloudlets === 1 ? "" : "s"}`);
  set(node, "io", `${bytes(u.read_bytes)} read, ${bytes(u.written_bytes)} written`);
  set(node, "address", [vm.network.ipv4, ...vm.network.publish.map((p) => `${p.host_port}→${p.guest_port}${p.protocol === "udp" ? "/udp" : ""}`), ...(vm.gpus ?? []).map((g) => g.name)].filter(Boolean).join(" · "));
  set(node, "age", `up ${span((now() - Date.parse(vm.created_at)) / 1000)}`);
  set(node, "reason", vm.reason ?? "");
  node.querySelector('[data-k="freeze"]').hidden = vm.state !== "running";
  node.querySelector('[data-k="thaw"]').hidden = vm.state !== "frozen";
  node.querySelector('[data-k="resize"]').disabled = vm.state !== "running" && vm.state !== "frozen";
  node.querySelector('[data-k="delete"]').disabled = vm.state === "deleting" || vm.state === "creating";
  spark(node.querySelector("canvas"), state.history.get(vm.id) ?? [], l.cpus ?? 1);
}

// traffic is what a VM receives and sends, in bits per second, over the last sample.
function traffic(past) {
  if (past.length < 2) return [0, 0];
  const [a, b] = past.slice(-2), seconds = (Date.parse(b.at) - Date.parse(a.at)) / 1000;
  const rate = (key) => (seconds > 0 ? Math.max(0, ((b[key] - a[key]) * 8) / seconds) : 0);
  return [rate("received"), rate("sent")];
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

const cloudletTone = { running: "good", succeeded: "idle", queued: "warn", starting: "warn", frozen: "warn", failed: "bad", deadline_exceeded: "bad", lost: "bad", cancelled: "idle" };
const isOver = (c) => Boolean(c.finished_at);

function cloudletRow(c) {
  const cell = (key, kind = "") => el("td", { class: kind, "data-k": key });
  return el("tr", {}, el("td", { class: "name" }, el("div", { "data-k": "name" }), el("div", { class: "reason", "data-k": "reason" })), cell("vm"),
    el("td", {}, el("span", { class: "state", "data-k": "state" })), cell("sla"), cell("deadline", "nowrap"), cell("cpu", "num"), cell("peak", "num"), cell("elapsed", "num"), cell("exit"),
    el("td", { class: "actions" },
      el("button", { class: "small quiet", type: "button", onclick: () => openOutput(c.id, c.name) }, "Output"), " ",
      el("button", { class: "small", type: "button", "data-k": "cancel", onclick: () => attempt(() => call("DELETE", "/cloudlets/" + encodeURIComponent(c.id))) }, "Cancel")));
}

function updateCloudlet(node, c) {
  set(node, "name", c.name);
  set(node, "reason", c.reason || (c.argv ?? []).join(" ").slice(0, 160));
  set(node, "vm", c.vm_name || "–");
  set(node, "state", c.state.replace("_", " ")).className = "state " + (cloudletTone[c.state] ?? "");
  set(node, "sla", String(c.sla));
  set(node, "deadline", deadline(c));
  set(node, "cpu", `${c.usage.cpu_seconds.toFixed(2)} s`);
  set(node, "peak", bytes(c.usage.memory_peak_bytes));
  set(node, "elapsed", c.started_at ? span(((c.finished_at ? Date.parse(c.finished_at) : now()) - Date.parse(c.started_at)) / 1000) : "–");
  set(node, "exit", c.exit_code ?? (c.signal || "–"));
  node.querySelector('[data-k="cancel"]').hidden = isOver(c);
}

function deadline(c) {
  if (!c.deadline_at) return "–";
  if (c.overrun_seconds > 0) return `missed by ${span(c.overrun_seconds)}`;
  const left = (Date.parse(c.deadline_at) - (c.finished_at ? Date.parse(c.finished_at) : now())) / 1000;
  return isOver(c) ? `met, ${span(left)} left` : left > 0 ? `in ${span(left)}` : `over by ${span(-left)}`;
}

function drawEvents() {
  const list = $("events"), newest = state.events.slice(-100).reverse();
  const key = newest.length ? String(newest[0].seq) : "";
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...newest.map((e) => el("li", {}, el("time", { dateTime: e.at }, clock(e.at)), el("span", { class: e.level }, e.message))));
}

// ---- actions

let toastTimer = 0;
function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, 6000);
}

async function attempt(act) {
  try { return await act(); } catch (refusal) {
    if (refusal.problem?.status === 401) showLogin("Your session is over.");
    else toast(refusal.message + (refusal.problem?.hint ? `. ${refusal.problem.hint}` : ""));
  }
}

function vmAction(act, id) {
  const vm = state.vms.find((v) => v.id === id);
  if (!vm) return;
  if (act === "resize") return openVM(vm);
  if (act === "delete") return confirmDelete(vm);
  attempt(() => call("POST", `/vms/${encodeURIComponent(id)}/actions/${act}`));
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

for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());

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

function openVM(vm) {
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

$("new-vm").addEventListener("click", () => openVM(null));
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

$("new-cloudlet").addEventListener("click", () => {
  clearErrors($("cloudlet-form"));
  const select = $("c-vm");
  select.replaceChildren(el("option", { value: "" }, "choose for me"), ...state.vms.map((vm) => el("option", { value: vm.id }, vm.name)));
  $("cloudlet-dialog").showModal();
});

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

function clearErrors(form) {
  for (const p of form.querySelectorAll(".field-error, .form-error")) p.textContent = "";
}

// send submits a form and puts every complaint beside its field.
async function send(form, dialog, act) {
  clearErrors(form);
  const submit = form.querySelector("button.primary");
  submit.disabled = true;
  try {
    await act();
    dialog.close();
  } catch (refusal) {
    let placed = false;
    for (const e of refusal.problem?.errors ?? []) {
      const name = (e.pointer ?? "").replace(/^\//, "").replace(/^(network\/publish)\/.*/, "$1");
      const field = form.querySelector(`[data-field="${CSS.escape(name)}"] .field-error`);
      if (field) { field.textContent = e.detail; placed = true; }
    }
    if (!placed) form.querySelector(".form-error").textContent = refusal.message + (refusal.problem?.hint ? ` – ${refusal.problem.hint}` : "");
  } finally {
    submit.disabled = false;
  }
}

// ---- output

let reading = null;
const shown = { id: "", stream: "stdout" };
const maxShown = 500000;

function openOutput(id, name) {
  shown.id = id;
  $("output-title").textContent = `Output of ${name}`;
  $("output-dialog").showModal();
  readOutput("stdout");
}

async function readOutput(kind) {
  reading?.abort();
  const own = reading = new AbortController();
  shown.stream = kind;
  for (const s of ["stdout", "stderr"]) $("tab-" + s).setAttribute("aria-selected", String(s === kind));
  const pane = $("output");
  pane.textContent = "";
  try {
    await follow(`/cloudlets/${encodeURIComponent(shown.id)}/output?stream=${kind}&follow=true&tail=2000`, own.signal, (text) => {
      const atEnd = pane.scrollTop + pane.clientHeight >= pane.scrollHeight - 20;
      const all = pane.textContent + text;
      pane.textContent = all.length > maxShown ? all.slice(-maxShown) : all;
      if (atEnd) pane.scrollTop = pane.scrollHeight;
    });
    if (!pane.textContent) pane.textContent = `(nothing on ${kind})`;
  } catch (refusal) {
    if (!own.signal.aborted) pane.textContent = refusal.message;
  }
}

for (const kind of ["stdout", "stderr"]) $("tab-" + kind).addEventListener("click", () => readOutput(kind));
$("output-dialog").addEventListener("close", () => reading?.abort());

begin();
