// All metrics: what they are called, what they mean, what they are now.
import { copyButton, el, write } from "/lib/dom.js";
import { bytes } from "/lib/format.js";
import { labelText, promql } from "/lib/prom.js";

const mostSeries = 50;

// browser makes the list; prometheus() answers the address of one, or "".
export function browser(prometheus) {
  const search = el("input", { type: "search", id: "metric-search", placeholder: "Search name or help", "aria-label": "Search metrics", spellcheck: false, autocomplete: "off", oninput: () => filter() });
  const found = el("span", { class: "muted small-text", role: "status", id: "metric-count" });
  const list = el("div", { class: "metrics", id: "metrics" });
  const rows = new Map(); // by name

  function take(families) {
    for (const name of rows.keys()) if (!families.has(name)) { rows.get(name).node.remove(); rows.delete(name); }
    for (const family of families.values()) {
      if (!rows.has(family.name)) { rows.set(family.name, row(family, prometheus)); list.append(rows.get(family.name).node); }
      rows.get(family.name).show(family);
    }
    filter();
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    for (const r of rows.values()) {
      r.node.hidden = !words.every((w) => r.words.includes(w));
      n += r.node.hidden ? 0 : 1;
    }
    write(found, `${n} of ${rows.size} metrics`);
  }

  return { node: el("div", {}, el("div", { class: "search" }, search, found), list), take };
}

function row(first, prometheus) {
  const value = el("span", { class: "num now" }), series = el("div", { class: "series" }), query = promql(first);
  let family = first;
  const node = el("details", { "data-name": first.name, ontoggle: () => fill() },
    el("summary", {}, el("code", {}, first.name), el("span", { class: "kind" }, first.type), value, el("span", { class: "help" }, first.help)),
    el("p", { class: "expr" }, el("code", {}, query), copyButton(query, "Copy PromQL"), el("span", { class: "ask" })), series);

  function fill() {
    if (!node.open) return;
    const base = prometheus(), ask = node.querySelector(".ask");
    ask.replaceChildren(...(base ? [el("a", { href: `${base}/graph?g0.expr=${encodeURIComponent(query)}&g0.tab=0`, target: "_blank", rel: "noreferrer" }, "Ask Prometheus")] : []));
    const shown = family.samples.slice(0, mostSeries);
    while (series.children.length > shown.length) series.lastChild.remove();
    shown.forEach((s, i) => {
      if (!series.children[i]) series.append(el("div", {}, el("code"), el("span", { class: "num" })));
      write(series.children[i].children[0], s.name + labelText(s.labels));
      write(series.children[i].children[1], readable(s.name, s.value));
    });
    if (family.samples.length > mostSeries) series.append(el("div", { class: "muted" }, `and ${family.samples.length - mostSeries} more`));
  }

  return { node, words: `${first.name} ${first.help} ${first.type}`.toLowerCase(), show(next) {
    family = next;
    write(value, next.samples.length === 1 ? readable(next.name, next.samples[0].value) : `${next.samples.length} series`);
    fill();
  } };
}

function readable(name, value) {
  if (/_bytes(_total)?$/.test(name) && Math.abs(value) >= 1024) return `${value} (${bytes(value)})`;
  if (/_timestamp_seconds$/.test(name) && value > 1e9) return `${value} (${new Date(value * 1000).toISOString()})`;
  return String(value);
}
