// The monitoring page: is /metrics well, what does it say, and how to have a
// Prometheus read it.
import { copyButton, el, section, set, write } from "/lib/dom.js";
import { bytes, span } from "/lib/format.js";
import { state } from "/lib/live.js";
import { Poll } from "/lib/poll.js";
import { byLabel, single } from "/lib/prom.js";
import { eventList } from "/parts/events.js";
import { browser } from "/prometheus/browser.js";
import { panels } from "/prometheus/panels.js";
import { scrape, scrapes } from "/prometheus/scrape.js";

const every = 5000, everyWhenBig = 15000, big = 1 << 20; // ms, ms, bytes
const remembered = "cloudflash.prometheus";

export function open(root) {
  const health = el("section", { class: "tiles", "aria-label": "Scrape health" }, ...[["scrape", "Scrape"], ["size", "Size"], ["series", "Series"], ["sources", "Collectors"], ["others", "Other scrapers"]].map(([id, label]) =>
    el("div", { class: "tile", id: "prom-" + id }, el("span", { class: "label" }, label), el("span", { class: "value", "data-k": "value" }, "—"), el("span", { class: "note", "data-k": "note" }))));
  const trouble = el("p", { class: "empty", id: "prom-trouble", role: "status", hidden: true });
  const own = panels(), metrics = browser(address), events = eventList(50);
  const watcher = new Scrapers();
  root.append(el("h1", { tabIndex: -1 }, "Prometheus"), trouble, health, section("Now", "now-title", own.counts), section("Last five minutes", "panels-title", own.grid),
    section("System log", "log-title", events.node), section("Metrics", "metrics-title", metrics.node), section("Have them scraped", "setup-title", setup()));

  const poll = new Poll(every, async () => {
    try {
      const result = await scrape();
      poll.ms = result.bytes > big ? everyWhenBig : every;
      trouble.hidden = true;
      showHealth(health, result, watcher.take(result));
      own.take(result);
      metrics.take(result.families);
    } catch (error) {
      trouble.hidden = false;
      write(trouble, `The metrics cannot be read: ${error.message}`);
    }
  });
  return { title: "Prometheus", draw: () => events.update(state.events), close() { poll.stop(); own.close(); } };
}

function showHealth(health, { ms, bytes: size, packed, series, families }, others) {
  const put = (id, value, note) => { const tile = health.querySelector("#prom-" + id); set(tile, "value", value); set(tile, "note", note); };
  const render = single(families.get("cloudflash_metrics_render_seconds"));
  put("scrape", milli(ms), `seen from here${!render ? "" : `; ${milli(render * 1000)} of it in the agent`}`);
  put("size", bytes(size), packed ? `${bytes(packed)} packed` : "");
  put("series", series.toLocaleString("en"), `in ${families.size} metrics`);
  const sources = byLabel(families.get("cloudflash_collector_success"), "collector"), failed = [...sources].filter(([, ok]) => ok !== 1).map(([name]) => name);
  put("sources", `${sources.size - failed.length} of ${sources.size}`, failed.length ? `failed: ${failed.join(", ")}` : sources.size ? "read well" : "not told");
  put("others", others.seen ? `${span((Date.now() - others.seen) / 1000)} ago` : "none seen", others.seen ? `about one scrape in ${span(others.every)}` : `since this page is open; ${others.all.toLocaleString("en")} scrapes since the agent began`);
}

const milli = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;

// Scrapers finds out that somebody else reads the metrics: the agent counts all
// scrapes, and this page knows its own.
class Scrapers {
  constructor() { Object.assign(this, { all: null, seen: 0, count: 0, since: Date.now() }); }

  take({ families }) {
    const all = scrapes(families);
    // The scrape that tells is counted only after it was answered, or served from a moment before: two are no proof of a second reader.
    const others = this.all === null ? 0 : Math.max(0, all - this.all - 1);
    if (others > 0) { this.seen = Date.now(); this.count += others; }
    this.all = all;
    return { all, seen: this.seen, every: (Date.now() - this.since) / 1000 / Math.max(1, this.count) };
  }
}

// address is where this browser's user has a Prometheus.
function address() {
  try {
    const text = localStorage.getItem(remembered) ?? "";
    return isAddress(text) ? text : "";
  } catch { return ""; }
}

const isAddress = (text) => /^https?:\/\/[^\s/]+/.test(text);

function setup() {
  const snippet = `scrape_configs:\n  - job_name: cloudflash\n    scrape_interval: 15s\n    static_configs:\n      - targets: ["${location.host}"]\n`;
  const rules = el("pre", { class: "code rules", tabIndex: 0, "aria-label": "Alert rules" }, "…");
  fetch("/prometheus/rules.yml").then((r) => (r.ok ? r.text() : Promise.reject(new Error(r.statusText)))).then((text) => write(rules, text.replace(/^#.*\n/gm, "")), (e) => write(rules, `Not at hand: ${e.message}`));
  return el("div", { class: "setup" }, link(),
    el("div", { class: "section-head" }, el("h3", {}, "Into prometheus.yml"), copyButton(snippet)), el("pre", { class: "code", tabIndex: 0, "aria-label": "Scrape configuration" }, snippet),
    el("div", { class: "section-head" }, el("h3", {}, "Alert rules"), copyButton(() => rules.textContent)), rules);
}

// link leads to a Prometheus that is there already; its address stays in this browser.
function link() {
  const to = el("a", { target: "_blank", rel: "noreferrer" }), error = el("p", { class: "field-error", role: "alert" });
  const input = el("input", { id: "prom-address", type: "url", placeholder: "http://localhost:9090", value: address(), autocomplete: "off", spellcheck: false });
  const show = () => {
    to.hidden = !address();
    if (address()) { to.href = address(); write(to, `Open ${address()}`); }
  };
  const form = el("form", { class: "address", onsubmit: (event) => {
    event.preventDefault();
    const text = input.value.trim().replace(/\/+$/, "");
    const ok = !text || isAddress(text);
    write(error, ok ? "" : "An address begins with http:// or https://.");
    if (!ok) return;
    try { if (text) localStorage.setItem(remembered, text); else localStorage.removeItem(remembered); } catch { write(error, "This browser keeps nothing."); }
    show();
  } }, el("label", { htmlFor: "prom-address" }, "Your Prometheus ", el("small", {}, "remembered in this browser; the metrics above link to it")), el("div", { class: "row-inline" }, input, el("button", { class: "small" }, "Remember"), to), error);
  show();
  return form;
}
