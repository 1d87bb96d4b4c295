// A VM over time.
import { bits, bytes, percent } from "/lib/format.js";
import { rate } from "/lib/history.js";
import { samples } from "/lib/live.js";
import { charts, sampler } from "/parts/charts.js";

const perSecond = (n) => bytes(n) + "/s";
const coresOf = (n) => `${+n.toFixed(2)}`;

// specs are the charts of a VM; vm() answers its newest picture.
const specs = (vm) => [
  { id: "cpu", title: "CPU, cores", format: coresOf, rightFormat: percent, top: () => vm()?.limits.cpus ?? 0, series: [
    { key: "cpus", label: "used", tone: 1, fill: "origin", max: true }, { key: "cpus_limit", label: "limit", tone: 6, dash: true },
    { key: "cpu_throttled_ratio", label: "throttled", tone: 2, right: true, thin: true }] },
  { id: "memory", title: "Memory", format: bytes, binary: true, top: () => vm()?.limits.memory_bytes ?? 0, series: [
    { key: "anon_bytes", label: "anonymous", tone: 1, stack: true }, { key: "file_bytes", label: "files", tone: 3, stack: true },
    { key: "rest_bytes", label: "kernel and other", tone: 5, stack: true, needs: ["memory_bytes"] }, { key: "memory_limit_bytes", label: "limit", tone: 6, dash: true },
    { key: "memory_high_bytes", label: "slowed down above", tone: 2, dash: [2, 4] }], derive: deriveRest },
  { id: "bandwidth", title: "Bandwidth", format: bits, top: () => 1000, series: [
    { key: "received_bps", label: "received", tone: 1, max: true }, { key: "sent_bps", label: "sent", tone: 3, max: true },
    { key: "bandwidth_limit_bps", label: "limit", tone: 6, dash: true }] },
  { id: "io", title: "Disk", format: perSecond, binary: true, top: () => 4096, series: [
    { key: "read_bytes_per_second", label: "read", tone: 1, max: true }, { key: "written_bytes_per_second", label: "written", tone: 3, max: true }] },
  { id: "pressure", title: "Waiting for", format: percent, top: () => 0.1, series: [
    { key: "cpu_pressure", label: "CPU", tone: 1, max: true }, { key: "memory_pressure", label: "memory", tone: 2, max: true }, { key: "io_pressure", label: "disk", tone: 3, max: true }] },
  { id: "gpu", title: "GPU", format: percent, rightFormat: bytes, top: () => 1, rightTop: () => vm()?.gpus?.reduce((sum, g) => sum + g.memory_bytes, 0) || 2 ** 30, series: [
    { key: "gpu_busy", label: "busy", tone: 1, fill: "origin", max: true }, { key: "gpu_memory_bytes", label: "memory", tone: 3, right: true }] },
];

// What memory is neither anonymous nor files. The parts are read less often
// than the whole, so that it may be a little below zero: then it is zero.
function deriveRest(data) {
  const { memory_bytes: all, anon_bytes: anon, file_bytes: file } = data.series;
  data.series.rest_bytes = { avg: data.t.map((_, k) => (all.avg[k] === null ? null : Math.max(0, all.avg[k] - (anon.avg[k] ?? 0) - (file.avg[k] ?? 0)))) };
}

export function vmCharts(id, vm, range) {
  const all = charts({ title: "Over time", id: "charts-title", path: "/vms/" + encodeURIComponent(id), specs: specs(vm), range, name: vm()?.name ?? id });
  const take = sampler((at, usage) => all.push(at, point(usage, samples(id), vm().limits)));
  return { ...all, frame(topic) {
    if (topic === "vms") take(vm()?.usage);
  }, draw() {
    const now = vm();
    if (now) all.hide("gpu", !now.gpus?.length && now.usage.gpu_busy === undefined && now.usage.gpu_memory_bytes === undefined);
    all.draw();
  } };
}

// point is one streamed sample in the series of the history.
export function point(usage, past, limits) {
  const bps = (key) => { const r = rate(past, key); return r === null ? null : r * 8; };
  const periods = rate(past, "periods");
  return {
    cpus: usage.cpus, cpu_throttled_ratio: periods ? rate(past, "throttled_periods") / periods : periods,
    memory_bytes: usage.memory_bytes, anon_bytes: usage.anon_bytes, file_bytes: usage.file_bytes,
    received_bps: bps("received_bytes"), sent_bps: bps("sent_bytes"),
    // io.stat is read every 5 s: over less, most rates would be none and some five times too high.
    read_bytes_per_second: rate(past, "read_bytes", 4.5), written_bytes_per_second: rate(past, "written_bytes", 4.5),
    cpu_pressure: usage.cpu_pressure, memory_pressure: usage.memory_pressure, io_pressure: usage.io_pressure,
    gpu_busy: usage.gpu_busy, gpu_memory_bytes: usage.gpu_memory_bytes,
    cpus_limit: limits.cpus, memory_limit_bytes: limits.memory_bytes, bandwidth_limit_bps: limits.bandwidth_bps,
    memory_high_bytes: limits.memory_high_bytes, storage_bytes: usage.storage_bytes, storage_limit_bytes: limits.storage_bytes,
  };
}
