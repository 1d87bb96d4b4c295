// The policy: every value in force, and where it comes from.
import { el, write } from "/lib/dom.js";
import { amount, modeName, modeTone, nameOf, seconds, share } from "/scaling/units.js";

const sources = { default: "default", serve: "set by serve", host: "set for the host", vm: "set for this VM", spec: "from its spec" };
export const source = (from) => sources[from] ?? from ?? "";

// Of each column: the key of the rule, its title, what it means, and how it is written.
const columns = [
  ["mode", "Mode", "off, recommend only (decides and shows, changes nothing) or auto", (r) => modeName[r.mode] ?? r.mode],
  ["up", "Grows above", "use, of the limit", (r) => share(r.up)],
  ["down", "Shrinks below", "use, of the limit, for the whole cooldown", (r) => share(r.down)],
  ["cooldown_seconds", "Cooldown", "from any change to a shrink; growing never waits", (r) => seconds(r.cooldown_seconds)],
  ["window_seconds", "Window", "of use that a shrink looks back on", (r) => seconds(r.window_seconds)],
  ["target", "Target", "use, of the limit, after growing", (r) => share(r.target)],
  ["margin", "Margin", "above the peak of the window, after shrinking", (r) => share(r.margin)],
  ["step", "Step", "most that one shrink takes, of the limit", (r) => share(r.step)],
  ["min", "Min", "the limit is never below", (r) => bound(r, "min", "a quarter of each spec")],
  ["max", "Max", "the limit is never above", (r) => bound(r, "max", "4 × each spec")],
];

const bound = (rule, key, words) => (rule[key] === null || rule[key] === undefined ? words : rule.max === 0 ? "no limit" : amount(rule.resource, rule[key]));

export function policyCard() {
  const badge = el("span", { class: "pill", id: "policy-badge", hidden: true }), own = el("span", { class: "muted small-text", id: "policy-own" });
  const body = el("tbody", { id: "policy-rules" });
  const table = el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Rules in force" },
    el("table", { class: "tight rules-table" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Resource"), ...columns.map(([, text, title]) => el("th", { scope: "col", title }, text)))), body));
  const budget = el("p", { class: "muted small-text under", id: "policy-budget" });
  const trouble = el("p", { class: "empty", role: "status" }, "Asking the agent…");
  table.hidden = true;
  return { badge, own, node: el("div", {}, trouble, table, budget),
    show(policy) {
      trouble.hidden = true;
      table.hidden = false;
      mark(badge, policy.rules);
      const set = Object.keys(policy.own.rules ?? {}).map(nameOf);
      write(own, set.length ? `set here: ${set.join(", ")}` : policy.vm ? "nothing is set for this VM: the host's policy holds" : "nothing is set here");
      fill(body, policy.rules);
      write(budget, `At most ${policy.per_minute} changes of a VM's limits in a minute, ${policy.per_hour} in an hour.`);
    },
    excuse(text) { trouble.hidden = false; write(trouble, text); },
  };
}

// mark says the mode that most matters: auto where anything is scaled.
function mark(badge, rules) {
  const mode = ["auto", "recommend", "off"].find((m) => rules.some((r) => r.mode === m)) ?? "off";
  badge.hidden = false;
  write(badge, { auto: "auto: limits follow use", recommend: "recommend only: nothing is changed", off: "off: limits stay as they are" }[mode]);
  badge.className = "pill " + { auto: "good", recommend: "warn", off: "" }[mode];
}

function fill(body, rules) {
  while (body.children.length > rules.length) body.lastChild.remove();
  rules.forEach((rule, i) => {
    if (!body.children[i]) body.append(el("tr", {}, el("th", { scope: "row" }), ...columns.map(() => el("td", {}, el("span", {}), el("small", { class: "block" })))));
    const [name, ...cells] = body.children[i].children;
    write(name, nameOf(rule.resource));
    body.children[i].dataset.resource = rule.resource;
    columns.forEach(([key, , , text], k) => {
      const [value, from] = cells[k].children;
      write(value, text(rule));
      if (key === "mode") value.className = "state " + (modeTone[rule.mode] ?? "");
      write(from, source(rule.sources?.[key]));
    });
  });
}
