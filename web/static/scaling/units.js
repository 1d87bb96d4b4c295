// The resources whose limits are scaled: their names, units, and how amounts are written.
import { bits, bytes, cores, percent, span } from "/lib/format.js";

const MiB = 2 ** 20, perSecond = (n) => `${bytes(n)}/s`, operations = (n) => `${Math.round(n)} /s`;

// Of each: its name, show to write an amount, and the unit in which people type one.
export const resources = {
  cpus: { name: "CPU", show: (n) => `${cores(n)} ${n === 1 ? "core" : "cores"}`, unit: "cores", factor: 1 },
  memory_bytes: { name: "Memory", show: bytes, unit: "MiB", factor: MiB },
  storage_bytes: { name: "Storage", show: bytes, unit: "MiB", factor: MiB },
  bandwidth_bps: { name: "Bandwidth", show: bits, unit: "Mbit/s", factor: 1e6 },
  rbps: { name: "Disk reads", show: perSecond, unit: "MiB/s", factor: MiB },
  wbps: { name: "Disk writes", show: perSecond, unit: "MiB/s", factor: MiB },
  riops: { name: "Read operations", show: operations, unit: "per second", factor: 1 },
  wiops: { name: "Write operations", show: operations, unit: "per second", factor: 1 },
};

export const nameOf = (resource) => (resource === "all" ? "All resources" : resources[resource]?.name ?? resource);

export const amount = (resource, n) => (n === null || n === undefined ? "—" : (resources[resource]?.show ?? String)(n));

// share writes a ratio; small ones not as zero.
export const share = (ratio) => (ratio > 0 && ratio < 0.0005 ? "< 0.1 %" : ratio > 0 && ratio < 0.095 ? `${+(ratio * 100).toFixed(1)} %` : percent(ratio));

export const seconds = (n) => (n < 60 ? `${+n.toFixed(1)} s` : span(n).replace(/ 0 (s|min)$/, ""));

export const modeName = { auto: "auto", recommend: "recommend only", off: "off" };
export const modeTone = { auto: "good", recommend: "warn", off: "idle" };

const counted = new Set(["memory.events", "oom", "refaults"]), ratios = new Set(["usage", "throttled", "pressure", "below", "window", "share"]);

// trigger says what a decision rests on, in numbers.
export function trigger({ signal, value, limit, resource, use }) {
  const used = use ? `, ${amount(resource, use)} in use` : "";
  if (ratios.has(signal)) return `${signal} ${share(value)}${limit ? ` at a threshold of ${share(limit)}` : ""}${used}`;
  if (counted.has(signal)) return `${signal} ${Math.round(value)}${limit ? ` at a threshold of ${Math.round(limit)}` : ""}${used}`;
  if (signal === "growth") return `growth ${amount(resource, value)} a second${used}`;
  return signal + used;
}
