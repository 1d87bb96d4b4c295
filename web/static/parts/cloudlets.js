// The table of cloudlets.
import { call } from "/lib/api.js";
import { el, reconcile, set } from "/lib/dom.js";
import { bytes, span } from "/lib/format.js";
import { now } from "/lib/live.js";
import { attempt } from "/lib/session.js";
import { openOutput } from "/parts/output.js";

const cloudletTone = { running: "good", succeeded: "idle", queued: "warn", starting: "warn", frozen: "warn", failed: "bad", deadline_exceeded: "bad", lost: "bad", cancelled: "idle" };
const mostRows = 100;
const isOver = (c) => Boolean(c.finished_at);

// cloudletTable makes the table; update puts the cloudlets in.
export function cloudletTable() {
  const body = el("tbody", { id: "cloudlets" });
  const head = [["Name"], ["VM"], ["State"], ["SLA"], ["Deadline"], ["CPU time", "num"], ["Peak memory", "num"], ["Elapsed", "num"], ["Exit"]];
  const node = el("div", { class: "scroll", hidden: true, tabIndex: 0, role: "region", "aria-label": "Cloudlets" }, el("table", {},
    el("thead", {}, el("tr", {}, ...head.map(([text, kind]) => el("th", { class: kind, scope: "col" }, text)), el("th", {}, el("span", { class: "sr" }, "Actions")))), body));
  return { node, update(cloudlets) {
    reconcile(body, [...cloudlets].sort((a, b) => isOver(a) - isOver(b)).slice(0, mostRows), cloudletRow, updateCloudlet);
    node.hidden = cloudlets.length === 0;
  } };
}

function cloudletRow(c) {
  const cell = (key, kind = "") => el("td", { class: kind, "data-k": key });
  return el("tr", {}, el("td", { class: "name" }, el("div", { "data-k": "name" }), el("div", { class: "reason", "data-k": "reason" })), cell("vm"),
    el("td", {}, el("span", { class: "state", "data-k": "state" })), cell("sla"), cell("deadline", "nowrap"), cell("cpu", "num"), cell("peak", "num"), cell("elapsed", "num"), cell("exit"),
    el("td", { class: "actions" },
      el("button", { class: "small quiet", type: "button", onclick: () => openOutput(c.id, c.name) }, "Output"), " ",
      el("button", { class: "small", type: "button", "data-k": "cancel", onclick: () => attempt(() => call("DELETE", "/cloudlets/" + encodeURIComponent(c.id))) }, "Cancel")));
}

function updateCloudlet(node, c) {
  set(node, "name", c.name);
  set(node, "reason", c.reason || (c.argv ?? []).join(" ").slice(0, 160));
  set(node, "vm", c.vm_name || "–");
  set(node, "state", c.state.replace("_", " ")).className = "state " + (cloudletTone[c.state] ?? "");
  set(node, "sla", String(c.sla));
  set(node, "deadline", deadline(c));
  set(node, "cpu", `${c.usage.cpu_seconds.toFixed(2)} s`);
  set(node, "peak", bytes(c.usage.memory_peak_bytes));
  set(node, "elapsed", c.started_at ? span(((c.finished_at ? Date.parse(c.finished_at) : now()) - Date.parse(c.started_at)) / 1000) : "–");
  set(node, "exit", c.exit_code ?? (c.signal || "–"));
  node.querySelector('[data-k="cancel"]').hidden = isOver(c);
}

function deadline(c) {
  if (!c.deadline_at || c.state === "cancelled" || c.state === "lost") return "–";
  if (c.overrun_seconds > 0) return `missed by ${span(c.overrun_seconds)}`;
  const left = (Date.parse(c.deadline_at) - (c.finished_at ? Date.parse(c.finished_at) : now())) / 1000;
  return isOver(c) ? `met, ${span(left)} left` : left > 0 ? `in ${span(left)}` : `over by ${span(-left)}`;
}
