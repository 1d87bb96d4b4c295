// What was decided: kept up to date, and as a table.
import { call } from "/lib/api.js";
import { el, reconcile, set } from "/lib/dom.js";
import { clock } from "/lib/format.js";
import { now } from "/lib/live.js";
import { amount, nameOf, share, trigger } from "/scaling/units.js";

const mostKept = 500, mostRows = 100, page = 1000, mostPages = 20;
const effectWithin = 10; // seconds: what a decision did is known after one; after this it never will be

// Decisions are the newest of all VMs or of one, oldest first.
export class Decisions {
  constructor() { this.of(""); }

  // of begins anew for another VM.
  of(vm) { Object.assign(this, { vm, list: [], last: 0, version: 0, loaded: false }); }

  // read asks for what is new, and again for those whose effect was not known yet.
  async read() {
    const { vm } = this;
    for (let i = 0; i < mostPages; i++) {
      const answer = await this.ask(vm);
      if (vm !== this.vm) return; // another meanwhile
      this.take(answer.items ?? []);
      this.last = Math.max(this.last, answer.last_seq ?? 0);
      if ((answer.items ?? []).length < page) break;
    }
    this.loaded = true;
  }

  async ask(vm) {
    const open = this.list.find((d) => d.result === "applied" && !d.effect && now() - Date.parse(d.at) < effectWithin * 1000);
    const query = new URLSearchParams({ since: open ? open.seq - 1 : this.last, limit: page, ...(vm ? { vm } : {}) });
    try { return await call("GET", "/autoscale/events?" + query); } catch (refusal) {
      if (refusal.problem?.status !== 410 || this.last === 0) throw refusal;
      Object.assign(this, { list: [], last: 0 }); // so old that it is forgotten
      return { items: [] };
    }
  }

  take(items) {
    if (!items.length) return;
    const all = new Map(this.list.map((d) => [d.seq, d]));
    const before = JSON.stringify(this.list.at(-1)), size = all.size;
    for (const d of items) all.set(d.seq, d);
    this.list = [...all.values()].sort((a, b) => a.seq - b.seq).slice(-mostKept);
    this.last = Math.max(this.last, this.list.at(-1).seq);
    if (all.size !== size || JSON.stringify(this.list.at(-1)) !== before || items.some((d) => d.effect)) this.version++;
  }
}

const columns = ["Time", "VM", "Resource", "Trigger", "From → to", "Reason", "Result"];

export function decisionTable() {
  const body = el("tbody", { id: "decisions" });
  const node = el("div", { class: "scroll decisions", hidden: true, tabIndex: 0, role: "region", "aria-label": "Decisions" },
    el("table", { class: "tight stack" }, el("thead", {}, el("tr", {}, ...columns.map((text) => el("th", { scope: "col" }, text)))), body));
  const none = el("p", { class: "empty", id: "decisions-empty" }, "Asking the agent…");
  const more = el("p", { class: "muted small-text under" });
  let drawn = "";
  return { node: el("div", {}, node, none, more), draw(decisions, name) {
    const key = `${decisions.vm}/${decisions.version}/${decisions.loaded}`;
    if (key === drawn) return;
    drawn = key;
    const newest = decisions.list.slice(-mostRows).reverse();
    reconcile(body, newest.map((d) => ({ ...d, id: d.seq })), row, fill);
    node.hidden = !newest.length;
    none.hidden = newest.length > 0;
    if (decisions.loaded) none.replaceChildren(`Nothing was decided yet${name ? ` for ${name}` : ""}. A limit grows when use is above its threshold. To see it, `, el("code", {}, `cloudflash cloudlet run${name ? ` --vm ${name}` : ""} -- sh -c 'while :; do :; done'`));
    more.textContent = decisions.list.length > newest.length ? `The newest ${newest.length}; all of them: cloudflash autoscale events${name ? ` --vm ${name}` : ""}` : "";
  }, excuse(text) { if (!node.hidden) return; none.hidden = false; none.textContent = text; } };
}

function row() {
  const node = el("tr", {}, el("td", { class: "nowrap" }, el("time", { "data-k": "at" })), el("td", { class: "name" }, el("a", { "data-k": "vm" })), el("td", { "data-k": "resource" }), el("td", { class: "words", "data-k": "trigger" }),
    el("td", { class: "nowrap" }, el("div", { "data-k": "change" }), el("small", { "data-k": "high" })), el("td", { class: "words", "data-k": "reason" }),
    el("td", { class: "words" }, el("span", { class: "state", "data-k": "result" }), el("small", { class: "block", "data-k": "did" })));
  columns.forEach((label, k) => { node.children[k].dataset.label = label; });
  return node;
}

const resultTone = { applied: "good", recommended: "idle", deferred: "warn", infeasible: "bad", failed: "bad", noticed: "warn" };
export const shapes = { grow: "up", shrink: "down" };
const signs = { grow: "▲", shrink: "▼", rollback: "◆", drift: "◆" };

function fill(node, d) {
  const time = set(node, "at", clock(d.at));
  time.dateTime = time.title = d.at;
  set(node, "vm", d.vm_name || d.vm).setAttribute("href", `/autoscaling?vm=${encodeURIComponent(d.vm)}&resource=${d.resource}`);
  set(node, "resource", nameOf(d.resource));
  set(node, "trigger", trigger(d));
  set(node, "change", `${signs[d.action] ?? ""} ${amount(d.resource, d.from)} → ${amount(d.resource, d.to)}`);
  set(node, "high", d.high_to ? `slowed above ${amount(d.resource, d.high_from)} → ${amount(d.resource, d.high_to)}` : "");
  set(node, "reason", d.reason + (d.action === "rollback" ? " (the shrink is taken back)" : ""));
  set(node, "result", d.result).className = "state " + (resultTone[d.result] ?? "");
  set(node, "did", did(d));
}

// did says what a decision did: how soon the kernel had it, and how the VM fared then.
function did(d) {
  const parts = [d.why];
  if (d.kernel_seconds) parts.push(`in the kernel after ${milli(d.kernel_seconds)}`);
  if (d.effect) parts.push(`${d.effect.text || `${amount(d.resource, d.effect.use)} of ${amount(d.resource, d.effect.limit)} in use, throttled ${share(d.effect.throttled)}`} (${d.effect.seconds.toFixed(1)} s later)`);
  return parts.filter(Boolean).join("; ");
}

const milli = (s) => (s < 1 ? `${Math.max(1, Math.round(s * 1000))} ms` : `${s.toFixed(1)} s`);

// spoken is a decision in a few words.
export const spoken = (d) => `${clock(d.at)} ${d.action} ${amount(d.resource, d.from)} → ${amount(d.resource, d.to)}, ${d.result}: ${d.reason}`;
