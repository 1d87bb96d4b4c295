// The panels of CloudFlash's predecessor, from the metrics that a Prometheus reads.
import { call } from "/lib/api.js";
import { copyButton, el, set } from "/lib/dom.js";
import { bits, bytes, percent } from "/lib/format.js";
import { state } from "/lib/live.js";
import { byLabel, single } from "/lib/prom.js";
import { panel } from "/parts/panel.js";
import { Ring } from "/prometheus/scrape.js";

const seconds = 300, step = 5, mostVMs = 6;
const tones = [1, 2, 3, 4, 7, 8];
const two = (n) => String(+n.toFixed(2));

// Panels by VM: read answers a value for each id. seed names the series of the history they begin with.
const byVM = [
  { id: "cpu-by-vm", title: "CPU by VM, cores", format: two, expr: "sum by (vm) (rate(cloudflash_vm_cpu_seconds_total[1m]))", seed: "cpus", read: (f, rate) => rate("cloudflash_vm_cpu_seconds_total", 1) },
  { id: "bandwidth-by-vm", title: "Bandwidth by VM", format: bits, top: () => 1000, expr: "8 * sum by (vm) (rate(cloudflash_vm_network_receive_bytes_total[1m]) + rate(cloudflash_vm_network_transmit_bytes_total[1m]))",
    seed: ["received_bps", "sent_bps"], read: (f, rate) => sum(rate("cloudflash_vm_network_receive_bytes_total", 8), rate("cloudflash_vm_network_transmit_bytes_total", 8)) },
  { id: "gpu-by-vm", title: "GPU by VM", format: percent, top: () => 1, expr: "cloudflash_vm_gpu_busy", seed: "gpu_busy", read: (f) => byLabel(f.get("cloudflash_vm_gpu_busy"), "vm"), why: "No VM has a GPU whose driver tells how busy it is." },
];

const memory = { id: "memory-management", title: "Memory management", format: bytes, binary: true, expr: "cloudflash_host_memory_used_bytes",
  series: [{ key: "used", label: "used by the host", tone: 1, fill: "origin" }, { key: "vms", label: "of VMs", tone: 3 }, { key: "total", label: "installed", tone: 6, dash: true }] };

export function panels() {
  const counts = el("div", { class: "tiles" }, ...[["prom-vms", "Active VMs"], ["prom-cloudlets", "Active Cloudlets"], ["prom-fragmentation", "Fragmentation"]].map(([id, label]) =>
    el("div", { class: "tile", id }, el("span", { class: "label" }, label), el("span", { class: "value", "data-k": "value" }, "—"), el("span", { class: "note", "data-k": "note" }))));
  const grid = el("div", { class: "charts two" });
  const memoryPanel = panel(memory), memoryRing = new Ring(seconds, step);
  grid.append(withExpr(memoryPanel.node, memory.expr));
  const charts = byVM.map((spec) => new ByVM(spec, grid));
  let before = null;
  seedMemory();

  // seedMemory begins the chart with what the agent remembers of the host.
  async function seedMemory() {
    const answer = await call("GET", "/host/metrics?range=5m&fields=memory_used_bytes").catch(() => null), own = memoryRing.rows();
    if (!answer) return;
    memoryRing.clear();
    answer.t.forEach((t, k) => {
      const used = answer.series.memory_used_bytes?.avg[k] ?? null;
      if (t % step === 0 && used !== null && !(own.length && t >= own[0][0])) memoryRing.push(t, { used, total: state.host?.memory_bytes });
    });
    for (const [t, row] of own) memoryRing.push(t, row);
  }

  function take(scraped) {
    const f = scraped.families, rate = rates(before, scraped);
    before = scraped;
    const names = new Map((f.get("cloudflash_vm_info")?.samples ?? []).map((s) => [s.labels.vm, s.labels.name]));
    for (const chart of charts) chart.take(scraped.at, f, rate, names);
    const used = single(f.get("cloudflash_host_memory_used_bytes")) ?? single(f.get("cloudflash_memory_usage_bytes"));
    memoryRing.push(scraped.at, { used, total: single(f.get("cloudflash_host_memory_bytes")), vms: [...byLabel(f.get("cloudflash_vm_memory_current_bytes") ?? f.get("cloudflash_vm_memory_bytes"), "vm").values()].reduce((a, b) => a + b, 0) });
    memoryPanel.draw(memoryRing.data("last 5 min", "Waiting for the first scrape."));
    drawCounts(f, names);
  }

  function drawCounts(f, names) {
    const states = byLabel(f.get("cloudflash_vm_state"), "state"), word = (map) => [...map].filter(([, n]) => n).map(([s, n]) => `${n} ${s.replace("_", " ")}`).join(", ");
    put("prom-vms", single(f.get("cloudflash_vms")) ?? names.size, word(states) || [...names.values()].slice(0, 6).join(", "));
    const cloudlets = byLabel(f.get("cloudflash_cloudlets"), "state"), active = ["queued", "starting", "running", "frozen"];
    put("prom-cloudlets", active.reduce((n, s) => n + (cloudlets.get(s) ?? 0), 0), word(new Map([...cloudlets].filter(([s]) => active.includes(s)))) || "none");
    const ratio = single(f.get("cloudflash_host_fragmentation_ratio"));
    put("prom-fragmentation", ratio === null ? "—" : `${(ratio * 100).toFixed(1)} %`, ratio === null ? "no metric for it here" : "of free memory is in blocks smaller than a huge page");
  }

  const put = (id, value, note) => { const tile = counts.querySelector("#" + id); set(tile, "value", value); set(tile, "note", note); };
  return { counts, grid, take, close() { memoryPanel.close(); for (const chart of charts) chart.close(); } };
}

const withExpr = (node, expr) => {
  node.append(el("p", { class: "expr" }, el("code", {}, expr), copyButton(expr)));
  return node;
};

// rates answers what the counters of a family grew by in a second, by VM.
function rates(before, now) {
  return (name, times) => {
    const out = new Map();
    if (!before) return out;
    const old = byLabel(before.families.get(name), "vm"), took = now.at - before.at;
    for (const [vm, n] of byLabel(now.families.get(name), "vm")) if (old.has(vm) && n >= old.get(vm)) out.set(vm, ((n - old.get(vm)) * times) / took);
    return out;
  };
}

const sum = (a, b) => new Map([...a].map(([vm, n]) => [vm, n + (b.get(vm) ?? 0)]));

// ByVM is a chart with a line for each of the busiest VMs and one for all others.
class ByVM {
  constructor(spec, grid) {
    Object.assign(this, { spec, ring: new Ring(seconds, step), shown: "", seeded: false });
    this.place = el("div", { class: "place" });
    grid.append(this.place);
    this.build([], new Map());
  }

  // build makes the chart anew: its lines are other ones.
  build(vms, names) {
    this.panel?.close();
    const series = vms.map((vm, i) => ({ key: vm, label: names.get(vm) ?? vm, tone: tones[i] }));
    if (names.size > vms.length || !vms.length) series.push({ key: "others", label: "all others", tone: 5 });
    this.panel = panel({ ...this.spec, series });
    this.place.replaceChildren(withExpr(this.panel.node, this.spec.expr));
  }

  take(at, families, rate, names) {
    const values = this.spec.read(families, rate), last = (vm) => values.get(vm) ?? this.ring.series[vm]?.at(-1) ?? 0;
    const busiest = [...names.keys()].sort((a, b) => last(b) - last(a));
    // Lines stay as they are while the VMs do: a chart whose colours change is not read.
    const key = [...names.keys()].sort().join() + [...names.values()].join();
    if (key !== this.shown) {
      this.shown = key;
      this.top = busiest.slice(0, mostVMs);
      this.build(this.top, names);
      if (!this.seeded && names.size) this.seed(this.top);
    }
    if (values.size) this.ring.push(at, this.row(values));
    this.draw();
  }

  row(values) {
    const row = {};
    let others = 0;
    for (const [vm, n] of values) if (this.top.includes(vm)) row[vm] = n; else others += n;
    if (values.size > this.top.length) row.others = others;
    return row;
  }

  // seed takes what the agent remembers, so that the chart does not begin empty.
  async seed(vms) {
    this.seeded = true;
    const fields = [this.spec.seed].flat();
    const answers = await Promise.all(vms.map((vm) => call("GET", `/vms/${encodeURIComponent(vm)}/metrics?range=5m&fields=${fields.join(",")}`).catch(() => null)));
    const rows = new Map();
    answers.forEach((answer, i) => answer?.t.forEach((t, k) => {
      if (t % step) return; // as often as this page scrapes
      const parts = fields.map((field) => answer.series[field]?.avg[k] ?? null);
      if (parts.every((v) => v === null)) return;
      rows.set(t, { ...rows.get(t), [vms[i]]: parts.reduce((a, b) => a + b, 0) });
    }));
    const own = this.ring.rows();
    this.ring.clear();
    for (const t of [...rows.keys()].sort((a, b) => a - b)) if (!own.length || t < own[0][0]) this.ring.push(t, rows.get(t));
    for (const [t, row] of own) this.ring.push(t, row);
    this.draw();
  }

  draw() { this.panel.draw(this.ring.data("last 5 min", this.spec.why ?? "Waiting for the second scrape.")); }

  close() { this.panel.close(); }
}
