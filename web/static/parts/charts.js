// Several charts over the same time, with one choice of range and one cursor.
import { call } from "/lib/api.js";
import { choice, el, save } from "/lib/dom.js";
import { History, ranges } from "/lib/history.js";
import { schedule } from "/lib/live.js";
import { setQuery } from "/lib/router.js";
import { attempt } from "/lib/session.js";
import { panel } from "/parts/panel.js";

// charts makes the panels of specs; path is where their numbers are in the API.
export function charts({ title, id, path, specs, range, name }) {
  let hovered = null, drawn = -1, pumping = false, closed = false;
  const waiting = new Set(); // panels that are out of date
  const panels = specs.map((spec) => panel({ ...spec, point }));
  const keys = [...new Set(specs.flatMap((spec) => spec.series.flatMap((s) => s.needs ?? [s.key])))];
  const history = new History(path, keys, range, schedule);
  const picker = choice("Range", Object.keys(ranges).map((r) => [r, r]), history.range, (r) => { setQuery({ range: r === "5m" ? null : r }); history.setRange(r); });
  const csv = el("button", { type: "button", class: "small quiet", onclick: () => attempt(download) }, "CSV");
  const grid = el("div", { class: "charts" }, ...panels.map((p) => p.node));
  const node = el("section", { "aria-labelledby": id }, el("div", { class: "section-head" }, el("h2", { id }, title), picker, csv), grid);

  function point(at) {
    hovered = at;
    for (const p of panels) p.point(at);
  }

  // pump draws one panel in each animation frame, so that no frame takes long.
  function pump() {
    const [next] = waiting;
    pumping = Boolean(next) && !closed;
    if (!pumping) return;
    waiting.delete(next);
    const data = history.data();
    for (const spec of specs) spec.derive?.(data);
    next.draw(data);
    if (hovered !== null) next.point(hovered);
    requestAnimationFrame(pump);
  }

  async function download() {
    save(`${name}-${history.range}.csv`, await call("GET", `${path}/metrics?range=${history.range}`, undefined, "text/csv"));
  }

  return {
    node, push: (at, values) => history.push(at, values), resumed: () => history.load(),
    hide(id, hidden) {
      const { node } = panels[specs.findIndex((s) => s.id === id)];
      if (node.hidden !== hidden) drawn = -1;
      node.hidden = hidden;
    },
    query(r) { if ((r ?? "5m") !== history.range) { picker.mark(r ?? "5m"); history.setRange(r ?? "5m"); } },
    draw() {
      if (drawn === history.version) return;
      drawn = history.version;
      for (const p of panels) if (!p.node.hidden) waiting.add(p);
      if (!pumping) pump();
    },
    // redo has the next draw draw what has not changed by itself.
    redo() { drawn = -1; },
    close() {
      closed = true;
      history.close();
      for (const p of panels) p.close();
    },
  };
}

// sampler passes on each new sample once, told by its time.
export function sampler(use) {
  let last = "";
  return (usage) => {
    if (!usage || usage.at === last) return;
    last = usage.at;
    use(Date.parse(usage.at) / 1000, usage);
  };
}
