// The numbers of a chart: what the agent remembers of a range, and on the
// shortest one every new sample as it is streamed.
import { call } from "/lib/api.js";
import { now, state } from "/lib/live.js";

export const ranges = { "5m": { seconds: 300, name: "last 5 min" }, "1h": { seconds: 3600, name: "last hour" }, "24h": { seconds: 86400, name: "last 24 h" } };

export class History {
  // path is that of the API; keys are the series wanted.
  constructor(path, keys, range, onChange) {
    Object.assign(this, { path, keys, onChange, closed: false, version: 0, why: "Waiting for the first numbers." });
    this.setRange(range);
  }

  setRange(range) {
    this.range = range in ranges ? range : "5m";
    this.clear();
    this.load();
  }

  clear() {
    this.version++;
    this.inLast = 1;
    this.step = 1;
    this.t = [];
    this.series = Object.fromEntries(this.keys.map((key) => [key, { avg: [], max: null }]));
  }

  // load asks for all of it; longer ranges are asked for again when there is a new point.
  async load() {
    clearTimeout(this.timer);
    const range = this.range;
    try {
      const answer = await call("GET", `${this.path}/metrics?range=${range}&fields=${this.keys.join(",")}`);
      if (this.closed || range !== this.range) return;
      this.take(answer);
    } catch (refusal) {
      if (this.closed || range !== this.range) return;
      this.why = range === "5m" ? "No history; new numbers appear here as they come." : `No history: ${refusal.message}.`;
      this.version++;
      if (![404, 501].includes(refusal.problem?.status)) this.timer = setTimeout(() => this.load(), 5000);
    }
    this.onChange();
  }

  take(answer) {
    const live = this.range === "5m" ? this.after(answer.t.at(-1) ?? 0) : [];
    this.version++;
    this.step = answer.step_seconds;
    this.t = [...answer.t];
    for (const key of this.keys) {
      const of = answer.series[key];
      this.series[key] = { avg: [...(of?.avg ?? this.t.map(() => null))], max: this.step > 1 && of?.max ? [...of.max] : null };
    }
    this.why = "Nothing was measured in this time.";
    for (const [at, values] of live) this.push(at, values);
    if (this.range !== "5m") this.timer = setTimeout(() => document.hidden || state.paused ? this.later() : this.load(), this.step * 1000);
  }

  later() { this.timer = setTimeout(() => (document.hidden || state.paused ? this.later() : this.load()), 2000); }

  // after is what was streamed since the last remembered second.
  after(second) {
    const from = this.t.findIndex((t) => t > second + 0.5);
    return from < 0 ? [] : this.t.slice(from).map((t, i) => [t, Object.fromEntries(this.keys.map((key) => [key, this.series[key].avg[from + i]]))]);
  }

  // push adds a streamed sample. As in the history, samples of the same second are one point, their mean.
  push(time, values) {
    if (this.range !== "5m") return;
    const at = Math.floor(time), last = this.t.at(-1);
    if (last !== undefined && at < last) return;
    if (at === last) this.mix(values); else this.append(at, values);
    const old = this.t.findIndex((t) => t >= at - ranges["5m"].seconds - 2);
    if (old > 0) {
      this.t.splice(0, old);
      for (const key of this.keys) this.series[key].avg.splice(0, old);
    }
  }

  mix(values) {
    this.version++;
    const n = this.inLast++;
    for (const key of this.keys) {
      const of = this.series[key].avg, k = of.length - 1, v = values[key] ?? null;
      if (v !== null) of[k] = of[k] === null ? v : (of[k] * n + v) / (n + 1);
    }
  }

  append(at, values) {
    this.inLast = 1;
    this.version++;
    this.t.push(at);
    for (const key of this.keys) this.series[key].avg.push(values[key] ?? null);
  }

  // data is what a panel draws.
  data() {
    const { seconds, name } = ranges[this.range];
    const to = Math.max(this.t.at(-1) ?? 0, this.range === "5m" ? 0 : now() / 1000 - this.step) || now() / 1000;
    return { t: this.t, series: this.series, from: to - seconds, to, name, why: this.why, step: this.step };
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
  }
}

// rate is what a counter grew by in a second between the sample and one at
// least seconds before it; null while there is none, or when it began anew.
export function rate(list, key, seconds = 0.5) {
  const newest = list.at(-1), to = Date.parse(newest?.at);
  for (let i = list.length - 2; i >= 0; i--) {
    const took = (to - Date.parse(list[i].at)) / 1000;
    if (took < seconds) continue;
    const grew = newest[key] - list[i][key];
    return grew >= 0 && took < seconds * 4 + 4 ? grew / took : null;
  }
  return null;
}
