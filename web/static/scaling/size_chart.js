// How big a VM was over time: limit, use, thresholds, cooldowns and decisions.
import { choice, el, write } from "/lib/dom.js";
import { now, samples, state } from "/lib/live.js";
import { charts, sampler } from "/parts/charts.js";
import { point } from "/parts/vm_charts.js";
import { shapes, spoken } from "/scaling/decisions.js";
import { amount, resources, share } from "/scaling/units.js";

// Of each resource: the series of its limit and of its use.
const drawn = {
  cpus: { limit: "cpus_limit", use: ["cpus"] },
  memory_bytes: { limit: "memory_limit_bytes", use: ["memory_bytes"], binary: true },
  bandwidth_bps: { limit: "bandwidth_limit_bps", use: ["received_bps", "sent_bps"] },
  storage_bytes: { limit: "storage_limit_bytes", use: ["storage_bytes"], binary: true },
};
export const drawnResources = Object.keys(drawn);

const few = 5; // decisions that are spoken

const stands = { saturated: "more is wanted", cooldown: "it shrinks no sooner than the cooldown ends", at_max: "more is needed than max allows",
  deferred: "it waits for room", infeasible: "the host will never have the room it needs", off: "it is not scaled" };

// sizeChart makes the section of one VM. rule() answers how a resource of it is scaled, decisions() what was decided.
export function sizeChart({ vm, resource, range, rule, scaled, decisions, onResource }) {
  const find = () => state.vms.find((v) => v.id === vm.id) ?? vm, of = drawn[resource];
  const series = [{ key: "use", label: "used", tone: 1, fill: "origin", max: true, needs: of.use },
    { key: "limit", label: "limit", tone: 2, step: true, needs: [of.limit] },
    { key: "up", label: "grows above", tone: 4, dash: true, step: true, needs: [] }, { key: "down", label: "shrinks below", tone: 3, dash: [2, 4], step: true, needs: [] }];
  const spec = { id: "size", title: `${resources[resource].name} of ${vm.name}`, format: (n) => amount(resource, n), binary: of.binary, series, derive };
  const all = charts({ title: "Size over time", id: "size-title", path: "/vms/" + encodeURIComponent(vm.id), specs: [spec], range, name: `${vm.name}-${resource}` });
  const legend = el("p", { class: "muted small-text", id: "size-legend" });
  all.node.firstChild.classList.add("wrap");
  all.node.firstChild.insertBefore(choice("Resource", drawnResources.map((r) => [r, resources[r].name]), resource, onResource), all.node.firstChild.children[1]);
  all.node.append(legend);
  const take = sampler((at, usage) => all.push(at, point(usage, samples(vm.id), find().limits)));
  let was = "";

  function derive(data) {
    const limit = data.series[of.limit], first = data.series[of.use[0]], second = data.series[of.use[1]];
    const greater = (pick) => (second?.[pick] ? first[pick]?.map((a, k) => { const b = second[pick][k]; return a === null ? b : Math.max(a, b ?? a); }) : first[pick]) ?? null;
    const { up, down } = rule() ?? {}, times = (ratio) => ({ avg: limit.avg.map((v) => (v === null || !ratio ? null : v * ratio)) });
    Object.assign(data.series, { use: { avg: greater("avg"), max: greater("max") }, limit: { avg: limit.avg }, up: times(up), down: times(down) });
    const own = decisions().filter((d) => d.resource === resource && within(d, data));
    data.marks = own.map((d) => ({ t: Date.parse(d.at) / 1000, y: d.to, shape: shapes[d.action], hollow: d.result !== "applied", text: spoken(d) }));
    data.bands = cooldowns(decisions().filter(applied), rule()?.cooldown_seconds ?? 0, data);
    data.spoken = own.length ? `. ${own.length} decision${own.length === 1 ? "" : "s"}, the last: ${own.slice(-few).reverse().map(spoken).join("; ")}` : ". No decision in this time";
  }

  const applied = (d) => d.resource === resource && d.result === "applied";
  const within = (d, { from, to }) => { const t = Date.parse(d.at) / 1000; return t >= from && t <= to + 2; };

  function words() {
    const r = rule(), s = scaled();
    const left = s?.cooldown_until ? (Date.parse(s.cooldown_until) - now()) / 1000 : 0;
    const parts = ["▲ grown, ▼ shrunk, ◆ rolled back or changed by somebody else; hollow: not done. Shaded: cooldown."];
    if (r) parts.push(`Grows above ${share(r.up)} of the limit, shrinks below ${share(r.down)}${s ? `, between ${amount(resource, s.min)} and ${amount(resource, s.max)}` : ""}.`);
    if (s?.state in stands) parts.push(`Now ${stands[s.state]}${left > 0 ? `, in ${Math.ceil(left)} s` : ""}.`);
    write(legend, parts.join(" "));
  }

  return { ...all, frame(topic) { if (topic === "vms") take(find().usage); }, draw() {
    const key = `${decisions().length}/${decisions().at(-1)?.seq}/${JSON.stringify(rule() ?? null)}`;
    if (key !== was) all.redo();
    was = key;
    words();
    all.draw();
  } };
}

// cooldowns are the times in which a limit could not shrink: from each change on, those that meet made one.
function cooldowns(changes, seconds, { from, to }) {
  const list = [];
  for (const d of seconds ? changes : []) {
    const began = Date.parse(d.at) / 1000, ends = began + seconds;
    if (ends < from || began > to) continue;
    if (list.length && began <= list.at(-1).to) list.at(-1).to = ends; else list.push({ from: began, to: ends });
  }
  return list;
}
