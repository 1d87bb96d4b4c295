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
  let hovered = null;
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

  async function download() {
    save(`${name}-${history.range}.csv`, await call("GET", `${path}/metrics?range=${history.range}`, undefined, "text/csv"));
  }

  return {
    node, push: (at, values) => history.push(at, values), resumed: () => history.load(),
    hide: (spec, hidden) => { panels[specs.findIndex((s) => s.id === spec)].node.hidden = hidden; },
    query(r) { if ((r ?? "5m") !== history.range) { picker.mark(r ?? "5m"); history.setRange(r ?? "5m"); } },
    draw() {
      const data = history.data();
      for (const spec of specs) spec.derive?.(data);
      panels.forEach((p) => { if (!p.node.hidden) p.draw(data); });
      if (hovered !== null) point(hovered);
    },
    close() {
      history.close();
      for (const p of panels) p.close();
    },
  };
}

// changed tells whether a sample is a new one, by its time.
export function sampler(use) {
  let last = "";
  return (usage) => {
    if (!usage || usage.at === last) return;
    last = usage.at;
    use(Date.parse(usage.at) / 1000, usage);
  };
}
