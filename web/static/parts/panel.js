// A chart with its words: title, what it shows now, a legend that reads out the
// values under the pointer, and the same numbers as a table.
import { el, write } from "/lib/dom.js";
import { clock } from "/lib/format.js";
import { Lines } from "/parts/chart.js";

const tableRows = 60;
const tableEvery = 5000; // ms: a table is read, not watched

// panel makes a chart. series: [{key, label, tone, of?, max?, stack?, dash?, right?}]
//   key    of the series in the data; max draws the highest beside the average
//   stack  put on top of the series before it
//   right  against the right axis
//   thin   a finer line
//   dash   a limit: dashed, perhaps with lengths of its own, and not spoken of as a use
//   step   a value holds until the next
// format and rightFormat write values; top and rightTop answer the least height of the chart. The data may also have
// bands [{from, to}], marks [{t, y, shape, hollow, text}], and spoken, what a reader of the screen is told of them.
export function panel({ id, title, series, format, rightFormat, top = () => 0, rightTop = () => 1, binary = false, point = () => {} }) {
  const legend = el("ul", { class: "legend" });
  const canvas = el("canvas", { role: "img", "aria-label": title });
  const why = el("p", { class: "chart-why", hidden: true });
  const toggle = el("button", { type: "button", class: "small quiet", "aria-expanded": "false", onclick: () => showTable(table.hidden) }, "Show table");
  const table = el("div", { class: "chart-table", hidden: true, tabIndex: 0, role: "region", "aria-label": `${title}, table` });
  const when = el("span", { class: "when muted" });
  const node = el("figure", { class: "panel", id: "chart-" + id }, el("figcaption", {}, el("h3", {}, title), when, toggle), legend, el("div", { class: "chart" }, canvas, why), table);
  const items = series.map((s) => {
    const value = el("span", { class: "value" });
    const item = el("li", { class: "tone-" + s.tone + (s.dash ? " dashed" : "") }, el("span", {}, s.label), value);
    legend.append(item);
    return { item, value };
  });
  const drawn = lines(series, items);
  const ink = (name) => getComputedStyle(node).getPropertyValue(name).trim();
  const chart = new Lines(canvas, { series: drawn, y: format, right: series.some((s) => s.right) ? rightFormat : null, time: tickTime, ink, binary });
  let data = null, at = null, height = 0, tableAt = 0, themed = false;

  canvas.addEventListener("pointermove", (event) => point(chart.timeAt(event.clientX)));
  canvas.addEventListener("pointerleave", () => point(null));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const retheme = () => { chart.theme(); redraw(); };
  dark.addEventListener("change", retheme);

  function redraw() {
    if (!data) return;
    const values = stacked(drawn, data);
    height = axisTop(Math.max(top(), highest(drawn, values, false)), height);
    chart.draw({ t: data.t, values, from: data.from, to: data.to, top: height, rightTop: rightTop(), gap: 2.5 * data.step, bands: data.bands, marks: data.marks });
    read();
  }

  // read writes what the series are at the cursor, or now.
  function read() {
    const k = at === null ? lastWith(data, series) : nearest(data.t, at);
    write(when, at !== null && k >= 0 ? markAt(data, at)?.text ?? clock(data.t[k] * 1000) : "");
    series.forEach((s, i) => write(items[i].value, text(s, value(data, s, k))));
    const spoken = series.map((s) => `${s.label} ${text(s, value(data, s, lastWith(data, series)))}${peak(s)}`).join("; ");
    canvas.setAttribute("aria-label", `${title}, ${data.name}: ${spoken}${data.spoken ?? ""}`);
  }

  const text = (s, v) => (v === null || v === undefined ? "—" : (s.right ? rightFormat : format)(v));

  function peak(s) {
    const of = data.series[s.key]?.max ?? data.series[s.key]?.avg ?? [];
    let best = -1;
    of.forEach((v, k) => { if (v !== null && (best < 0 || v > of[best])) best = k; });
    return best < 0 || s.dash ? "" : `, max ${text(s, of[best])} at ${clock(data.t[best] * 1000)}`;
  }

  function showTable(open) {
    table.hidden = !open;
    toggle.setAttribute("aria-expanded", String(open));
    write(toggle, open ? "Hide table" : "Show table");
    tableAt = 0;
    fillTable();
  }

  function fillTable() {
    if (table.hidden || !data || Date.now() - tableAt < tableEvery) return;
    tableAt = Date.now();
    const rows = [];
    const first = data.t.findIndex((_, k) => series.some((s) => !s.dash && value(data, s, k) !== null));
    const every = Math.max(1, Math.ceil((data.t.length - first) / tableRows));
    for (let k = data.t.length - 1; k >= first && first >= 0; k -= every) {
      rows.push(el("tr", {}, el("th", { scope: "row" }, clock(data.t[k] * 1000)), ...series.map((s) => el("td", { class: "num" }, text(s, value(data, s, k))))));
    }
    table.replaceChildren(el("table", {}, el("caption", { class: "sr" }, `${title}, ${data.name}`), el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Time"), ...series.map((s) => el("th", { scope: "col", class: "num" }, s.label)))), el("tbody", {}, ...rows)));
  }

  return {
    node,
    draw(next) {
      data = next;
      if (!themed && node.isConnected) { // before, no style is known
        themed = true;
        chart.theme();
      }
      const empty = !series.some((s) => !s.dash && data.series[s.key]?.avg.some((v) => v !== null));
      why.hidden = !empty;
      write(why, empty ? data.why : "");
      redraw();
      fillTable();
    },
    // point puts the cursor of this chart where that of another is.
    point(time) {
      at = time;
      chart.point(at === null || !data ? null : data.t[nearest(data.t, at)] ?? null);
      if (data) read();
    },
    close() {
      dark.removeEventListener("change", retheme);
      chart.close();
    },
  };
}

// lines are what is drawn of the series: each one, and its highest beside the average.
function lines(series, items) {
  const list = [];
  series.forEach((s, i) => {
    const color = () => rgb(getComputedStyle(items[i].item, "::before").color);
    list.push({ ...s, pick: "avg", color, fill: s.dash ? false : s.stack ? (i ? "-1" : "origin") : s.fill ?? false, solid: Boolean(s.stack), thin: Boolean(s.dash || s.thin), dash: s.dash === true ? [5, 4] : s.dash || null });
  });
  series.forEach((s, i) => {
    if (s.max) list.push({ ...s, pick: "max", color: list[i].color, fill: i, stack: false, thin: true });
  });
  return list;
}

// rgb writes a colour so that two digits of opacity can be put behind it.
const rgb = (color) => "#" + (color.match(/\d+(\.\d+)?/g) ?? [0, 0, 0]).slice(0, 3).map((n) => Math.round(n).toString(16).padStart(2, "0")).join("");

function stacked(drawn, data) {
  const below = data.t.map(() => 0);
  return drawn.map((s) => {
    const of = data.series[s.key]?.[s.pick] ?? data.series[s.key]?.avg ?? data.t.map(() => null);
    if (!s.stack) return of;
    return of.map((v, k) => (v === null ? null : (below[k] += v)));
  });
}

function highest(drawn, values, right) {
  let most = 0;
  drawn.forEach((s, i) => { if (Boolean(s.right) === right) for (const v of values[i]) if (v > most) most = v; });
  return most;
}

// axisTop leaves a margin, and does not jump at every change: it grows at once and shrinks by a quarter at least.
function axisTop(most, before) {
  const wanted = most * 1.05 || 1;
  return wanted > before || wanted < before * 0.75 ? wanted : before;
}

const value = (data, s, k) => (k < 0 ? null : data.series[s.key]?.avg[k] ?? null);

function lastWith(data, series) {
  for (let k = data.t.length - 1; k >= 0; k--) if (series.some((s) => !s.dash && value(data, s, k) !== null)) return k;
  return -1;
}

// markAt is the mark under the cursor.
function markAt({ marks = [], from, to }, at) {
  const apart = (mark) => Math.abs(mark.t - at), best = marks.reduce((a, b) => (a && apart(a) <= apart(b) ? a : b), null);
  return best && apart(best) < (to - from) / 80 ? best : null;
}

function nearest(t, at) {
  let low = 0, high = t.length - 1;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (t[mid] < at) low = mid + 1; else high = mid;
  }
  return low > 0 && at - t[low - 1] < t[low] - at ? low - 1 : t.length ? low : -1;
}

const tickTime = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false, hour: "2-digit", minute: "2-digit", ...(seconds % 60 ? { second: "2-digit" } : {}) });
