// Scrapes /metrics like a Prometheus would, and keeps what the charts need.
import { parse } from "/lib/prom.js";

// scrape answers {families, series, bytes, packed, ms, at}.
export async function scrape() {
  const began = performance.now();
  const response = await fetch("/metrics", { credentials: "same-origin", headers: { Accept: "text/plain;version=0.0.4" } });
  const text = await response.text();
  const ms = performance.now() - began;
  if (!response.ok) throw new Error(`/metrics answers ${response.status}: ${text.slice(0, 200)}`);
  const families = parse(text);
  let series = 0;
  for (const f of families.values()) series += f.samples.length;
  const packed = response.headers.get("Content-Encoding") ? Number(response.headers.get("Content-Length")) || null : null;
  return { families, series, bytes: new Blob([text]).size, packed, ms, at: Date.now() / 1000 };
}

// scrapes is how often /metrics was asked for, by whomever.
export function scrapes(families) {
  let all = 0;
  for (const s of families.get("cloudflash_http_requests_total")?.samples ?? []) if (s.labels.route === "/metrics") all += s.value;
  return all;
}

// Ring keeps the last seconds of several series over the same times.
export class Ring {
  constructor(seconds, step) {
    Object.assign(this, { seconds, step, t: [], series: {} });
  }

  // push adds values by key at a time. A key that is new was not there before; one that is gone has gaps from now on.
  push(at, values) {
    if (this.t.length && at <= this.t.at(-1)) return;
    for (const key of Object.keys(values)) this.series[key] ??= this.t.map(() => null);
    this.t.push(at);
    for (const key of Object.keys(this.series)) this.series[key].push(values[key] ?? null);
    const old = this.t.findIndex((t) => t > at - this.seconds);
    if (old > 0) {
      this.t.splice(0, old);
      for (const key of Object.keys(this.series)) {
        this.series[key].splice(0, old);
        if (this.series[key].every((v) => v === null)) delete this.series[key];
      }
    }
  }

  // rows are what push was given: [time, values].
  rows() {
    return this.t.map((t, k) => [t, Object.fromEntries(Object.entries(this.series).map(([key, of]) => [key, of[k]]))]);
  }

  clear() { Object.assign(this, { t: [], series: {} }); }

  data(name, why) {
    const to = this.t.at(-1) ?? Date.now() / 1000;
    return { t: this.t, series: Object.fromEntries(Object.entries(this.series).map(([k, avg]) => [k, { avg }])), from: to - this.seconds, to, name, why, step: this.step };
  }
}
