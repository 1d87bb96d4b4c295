// The host over time.
import { rate } from "/lib/history.js";
import { bits, bytes, percent } from "/lib/format.js";
import { state } from "/lib/live.js";
import { charts, sampler } from "/parts/charts.js";

const specs = [
  { id: "host-cpu", title: "CPU", format: percent, top: () => 1, series: [
    { key: "cpu_ratio", label: "busy", tone: 1, fill: "origin", max: true }, { key: "cpu_pressure", label: "tasks waiting", tone: 2 }] },
  { id: "host-memory", title: "Memory", format: bytes, binary: true, top: () => state.host?.memory_bytes ?? 0, series: [
    { key: "memory_used_bytes", label: "used", tone: 1, fill: "origin", max: true }, { key: "total", label: "installed", tone: 6, dash: true, needs: [] }],
    derive(data) { data.series.total = { avg: data.t.map(() => state.host?.memory_bytes ?? null) }; } },
  { id: "host-network", title: "Network", format: bits, top: () => 1000, series: [
    { key: "received_bps", label: "received", tone: 1, max: true }, { key: "sent_bps", label: "sent", tone: 3, max: true }] },
];

// A little more than all of a second is how exactly samples are taken.
const share = (ratio) => (ratio === null ? null : Math.min(ratio, 1));

export function hostCharts(range) {
  const past = [];
  const all = charts({ title: "Host", id: "host-title", path: "/host", specs, range, name: "host" });
  const take = sampler((at, usage) => {
    past.push(usage);
    if (past.length > 10) past.shift();
    const times8 = (key) => { const r = rate(past, key); return r === null ? null : r * 8; };
    all.push(at, { cpu_ratio: usage.cpu_ratio, memory_used_bytes: usage.memory_used_bytes, cpu_pressure: share(rate(past, "cpu_waiting_seconds")), received_bps: times8("received_bytes"), sent_bps: times8("sent_bytes") });
  });
  return { ...all, frame: (topic) => { if (topic === "host") take(state.host?.usage); } };
}
