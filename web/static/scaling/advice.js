// What is recommended for VMs, and what was found out about them.
import { call } from "/lib/api.js";
import { el, write } from "/lib/dom.js";
import { clock } from "/lib/format.js";
import { state } from "/lib/live.js";
import { attempt, toast } from "/lib/session.js";
import { ask } from "/parts/confirm.js";
import { amount, nameOf, resources, seconds, share } from "/scaling/units.js";

const mostVMs = 50;

// readAdvice asks for all advice, or that of one VM.
export async function readAdvice(vm) {
  if (vm) {
    const one = await call("GET", "/recommendations/" + encodeURIComponent(vm));
    return { items: Array.isArray(one.items) ? one.items : [one], more: 0 };
  }
  const { items = [], total = 0 } = await call("GET", `/recommendations?limit=${mostVMs}`);
  return { items, more: Math.max(0, total - items.length) };
}

// adviceList makes the list; changed is called when advice was taken or taken back.
export function adviceList(changed) {
  const list = el("div", { class: "advice", id: "advice" }), more = el("p", { class: "muted small-text under" });
  const none = el("p", { class: "empty", id: "advice-empty" }, "Asking the agent…");
  let drawn = "";
  const act = async (path, body, done) => { const ok = await attempt(() => call("POST", path, body)); if (ok) toast(done, true); changed(); };
  return { node: el("div", {}, list, none, more),
    show({ items, more: left }) {
      const key = JSON.stringify(items) + state.role;
      if (key === drawn) return;
      drawn = key;
      const focused = document.activeElement?.dataset.act; // survives that the list is made anew
      const shown = items.filter((a) => a.recommendations?.length || a.findings?.length || a.applied);
      list.replaceChildren(...shown.map((a) => article(a, act)));
      if (focused) list.querySelector(`[data-act="${CSS.escape(focused)}"]`)?.focus();
      none.hidden = shown.length > 0;
      none.replaceChildren("There is no advice yet: it comes from what VMs were seen to use. On the command line: ", el("code", {}, "cloudflash recommend"));
      write(more, left ? `and ${left} more: cloudflash recommend` : "");
    },
    excuse(text) { if (list.children.length) return; none.hidden = false; write(none, text); },
  };
}

function article(a, act) {
  const ref = a.vm || "host", path = "/recommendations/" + encodeURIComponent(ref), mayChange = state.role !== "viewer" && a.vm;
  const worth = (a.recommendations ?? []).filter((r) => r.worth);
  const button = (text, key, kind, onclick) => el("button", { type: "button", class: "small " + kind, "data-act": `${ref}/${key}`, onclick }, text);
  const apply = (list) => ask({ title: `Change the spec of ${a.vm_name}?`, text: question(list), yes: "Apply" },
    () => act(path + "/actions/apply", { resources: list.map((r) => r.resource) }, `${a.vm_name} has the recommended size.`));
  const undo = () => ask({ title: `Take back the change of ${a.vm_name}?`, text: `${changes(a.applied.to, a.applied.from)}.`, yes: "Undo" },
    () => act(path + "/actions/undo", undefined, `${a.vm_name} has the size from before.`));
  const buttons = mayChange ? [worth.length > 1 ? button(`Apply all ${worth.length}`, "all", "primary", () => apply(worth)) : null, a.applied ? button("Undo", "undo", "", undo) : null].filter(Boolean) : [];
  const one = (r) => button(r.worth ? "Apply" : "Apply anyway", r.resource, r.worth ? "" : "quiet", () => apply([r]));
  const seen = `seen for ${seconds(a.history_seconds)}${a.template ? `, with others of template ${a.template}` : ""}`;
  return el("article", { class: "card", "data-vm": ref },
    el("header", {}, el("h3", {}, a.vm ? el("a", { href: "/autoscaling?vm=" + encodeURIComponent(a.vm) }, a.vm_name) : "Host"), a.vm ? el("span", { class: "muted small-text" }, seen) : null),
    a.recommendations?.length ? table(a, mayChange ? one : null) : null,
    a.findings?.length ? el("ul", { class: "findings" }, ...a.findings.map(finding)) : null,
    a.applied ? el("p", { class: "muted small-text" }, `Taken at ${clock(a.applied.at)}: ${changes(a.applied.from, a.applied.to)}.`) : null,
    buttons.length ? el("div", { class: "actions" }, ...buttons) : null);
}

// question names old and new.
function question(list) {
  const sizes = list.map((r) => `${nameOf(r.resource)}: ${amount(r.resource, r.spec)} → ${amount(r.resource, r.target)}`).join("; ");
  return `${sizes}. ${list.every((r) => r.worth) ? "" : "Little is known yet: see its confidence. "}It can be undone.`;
}

function table(a, button) {
  const head = [["Resource"], ["Spec", "num"], ["Lower", "num"], ["Target", "num"], ["Upper", "num"], ["Saves", "num"], ["Confidence"], ["Why"]];
  return el("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": `Recommendations for ${a.vm_name}` }, el("table", { class: "tight stack advice-table" },
    el("thead", {}, el("tr", {}, ...head.map(([text, kind]) => el("th", { scope: "col", class: kind }, text)), button ? el("th", {}, el("span", { class: "sr" }, "Actions")) : null)),
    el("tbody", {}, ...a.recommendations.map((r) => el("tr", { "data-resource": r.resource }, el("th", { scope: "row" }, nameOf(r.resource)),
      ...["spec", "lower", "target", "upper"].map((key) => el("td", { class: "num", "data-label": key }, key === "target" ? el("strong", {}, amount(r.resource, r.target)) : amount(r.resource, r[key]))),
      el("td", { class: "num", "data-label": "saves" }, saves(r)), el("td", { "data-label": "confidence" }, confidence(r.confidence)),
      el("td", { class: "words", "data-label": "why" }, r.reason, limited(r)), button ? el("td", { class: "num" }, r.target === r.spec ? el("small", {}, "fits") : button(r)) : null)))));
}

function saves(r) {
  if (!r.saves) return "—";
  const size = Math.abs(r.saves);
  return `${r.saves > 0 ? "" : "needs "}${amount(r.resource, size)}${r.saves > 0 ? "" : " more"}`;
}

// confidence says how much was seen: a full day is all of it.
function confidence(c) {
  const word = c < 0.1 ? "very low" : c < 0.5 ? "low" : c < 1 ? "fair" : "full";
  return `${share(c)}, ${word}: ${c >= 1 ? "a day or more" : seconds(c * 86400)} of history`;
}

function limited(r) {
  const parts = [];
  if (r.uncapped_target && Math.abs(r.uncapped_target - r.target) > r.target * 0.01) parts.push(`without the policy's bounds ${amount(r.resource, r.uncapped_target)}`);
  if (r.throttled > 0.0005) parts.push(`it would be too small ${share(r.throttled)} of the time`);
  return parts.length ? el("small", { class: "block" }, parts.join("; ")) : null;
}

const finding = (f) => el("li", {}, el("span", { class: "pill" }, f.kind.replaceAll("-", " ")), " ", f.text, f.other ? el("a", { href: "/vms/" + encodeURIComponent(f.other) }, ` ${f.other_name || f.other}`) : null);

// changes are the numbers of two specs that differ.
function changes(from, to) {
  const list = Object.keys(resources).filter((r) => value(from, r) !== value(to, r));
  return list.length ? list.map((r) => `${nameOf(r)} ${amount(r, value(from, r))} → ${amount(r, value(to, r))}`).join("; ") : "nothing differs";
}

const value = (spec, resource) => spec[resource] ?? spec.io?.[resource] ?? 0;
