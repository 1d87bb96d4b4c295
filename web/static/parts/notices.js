// Alerts of autoscaling and idle clean-up, on every page, a few at a time.
import { el } from "/lib/dom.js";
import { clock } from "/lib/format.js";
import { now, state } from "/lib/live.js";

const most = 3, shownFor = 30000, fresh = 60000; // notices, ms, ms
const remembered = "cloudflash.notices"; // seq of the last event that was looked at
const alarms = (e) => (e.kind.startsWith("autoscale.") || e.kind === "vm.idle") && e.level !== "info";
const overBy = { "vm.busy": "vm.idle", "vm.keep": "vm.idle", "vm.idle_deleted": "vm.idle", "vm.deleted": "vm.idle" }; // what an event makes pointless

let seen = null;

// notices makes the region; draw takes in what is new.
export function notices() {
  const node = el("section", { id: "notices", "aria-label": "Notifications", "aria-live": "polite", "aria-relevant": "additions" });
  return { node, draw() {
    const last = state.events.at(-1)?.seq;
    if (!last || last === seen) return;
    seen ??= recall();
    if (seen > last) seen = null; // another agent, or its store is new
    const old = seen;
    const list = state.events.filter((e) => (old === null ? now() - Date.parse(e.at) < fresh : e.seq > old));
    for (const e of list) take(node, e);
    if (last !== old) remember(last);
  } };
}

function take(node, e) {
  const ended = overBy[e.kind];
  if (ended) node.querySelector(`[data-key="${CSS.escape(`${ended}/${e.vm ?? ""}`)}"]`)?.remove();
  if (alarms(e)) show(node, e);
}

// show puts a notice up; one of the same kind and VM is counted instead.
function show(node, e) {
  const key = `${e.kind}/${e.vm ?? ""}`, old = node.querySelector(`[data-key="${CSS.escape(key)}"]`), times = Number(old?.dataset.times ?? 0) + 1;
  old?.remove();
  while (node.children.length >= most) node.firstChild.remove();
  const close = () => { clearTimeout(timer); notice.remove(); };
  const notice = el("div", { class: "notice " + e.level, "data-key": key, "data-times": times },
    el("p", {}, el("time", { class: "muted", dateTime: e.at }, clock(e.at)), ` ${e.message}${times > 1 ? ` (${times} times)` : ""} `, el("a", { href: "/autoscaling" + (e.vm ? "?vm=" + encodeURIComponent(e.vm) : "") }, "Autoscaling")),
    el("button", { type: "button", class: "small quiet", "aria-label": `Dismiss: ${e.message}`, onclick: close }, "✕"));
  let timer = setTimeout(leave, shownFor);
  function leave() { // not while it is read
    if (notice.matches(":hover, :focus-within") || document.hidden) timer = setTimeout(leave, 2000); else close();
  }
  node.append(notice);
}

function recall() {
  try { const text = sessionStorage.getItem(remembered); return text === null ? null : Number(text); } catch { return null; }
}

function remember(seq) {
  seen = seq;
  try { sessionStorage.setItem(remembered, seq); } catch { /* they are shown again after a reload */ }
}
