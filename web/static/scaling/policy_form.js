// The dialogs that change a policy: rules of one resource or all, and idle clean-up.
import { call, Refusal } from "/lib/api.js";
import { el, write } from "/lib/dom.js";
import { clearErrors, send } from "/parts/form.js";
import { source } from "/scaling/policy.js";
import { nameOf, resources } from "/scaling/units.js";

const percentage = { factor: 0.01, unit: "%" };
const fields = [
  { key: "mode", label: "Mode", options: [["auto", "auto"], ["recommend", "recommend only"], ["off", "off"]] },
  { key: "up", label: "Grows above", ...percentage }, { key: "down", label: "Shrinks below", ...percentage },
  { key: "cooldown_seconds", label: "Cooldown", unit: "s" }, { key: "window_seconds", label: "Window", unit: "s" },
  { key: "target", label: "Target", ...percentage }, { key: "margin", label: "Margin", ...percentage }, { key: "step", label: "Step", ...percentage },
  { key: "min", label: "Min", bound: true }, { key: "max", label: "Max", bound: true },
];
const idleFields = [{ key: "after_seconds", label: "Announced after", unit: "s, 0 for never" }, { key: "notice_seconds", label: "Deleted after another", unit: "s" }, { key: "min_vms", label: "VMs that stay, idle or not", unit: "" }];

// policyPath is where the policy of a VM, or of the host, is in the API.
export const policyPath = (vm) => "/autoscale/policy" + (vm ? "?vm=" + encodeURIComponent(vm) : "");

// policyForm makes the dialog of rules, idleForm that of idle clean-up. saved is called with the policy that then holds.
export function policyForm(saved) {
  const select = el("select", { id: "policy-resource", onchange: () => fill() }, ...["all", ...Object.keys(resources)].map((r) => el("option", { value: r }, nameOf(r))));
  const d = dialog("policy", fields, el("div", { class: "field" }, el("label", { htmlFor: "policy-resource" }, "Resource"), select));
  let policy = null;

  function fill() {
    const resource = select.value, own = policy.own.rules?.[resource] ?? {};
    clearErrors(d.form);
    for (const f of d.inputs) {
      const unit = f.bound ? resources[resource] : f;
      f.node.hidden = Boolean(f.bound) && (!policy.vm || resource === "all"); // of one resource of a VM only
      f.node.dataset.field = `rules/${resource}/${f.key}`;
      f.factor = unit?.factor ?? 1;
      f.unit = unit?.unit ?? "";
      showField(f, own[f.key], ...inForce(policy, resource, f.key));
    }
  }

  d.submit(() => {
    const resource = select.value, rules = { ...policy.own.rules }, own = { ...rules[resource] };
    for (const f of d.inputs) if (!f.node.hidden) own[f.key] = readField(f);
    rules[resource] = own;
    if (Object.values(own).every((v) => v === undefined)) delete rules[resource];
    return put(policy, { ...policy.own, rules }, (fresh) => { policy = fresh; fill(); }, saved);
  });
  return { node: d.node, open(of, resource = "all") {
    policy = of;
    select.value = resource;
    write(d.title, `Autoscaling of ${of.vm ? of.vm_name : "the host"}`);
    write(d.note, `An empty field leaves the value to ${of.vm ? "the host's policy" : "the defaults"}; what holds now is shown in it.`);
    fill();
    d.node.showModal();
  } };
}

export function idleForm(saved) {
  const d = dialog("idle", idleFields);
  let policy = null;
  function fill() {
    clearErrors(d.form);
    for (const f of d.inputs) {
      f.node.dataset.field = "idle/" + f.key;
      f.factor = 1;
      showField(f, policy.own.idle?.[f.key], policy.idle[f.key], policy.idle.sources?.[f.key]);
    }
  }
  d.submit(() => {
    const idle = Object.fromEntries(d.inputs.map((f) => [f.key, readField(f)]));
    const own = { ...policy.own, idle };
    if (Object.values(idle).every((v) => v === undefined)) delete own.idle;
    return put(policy, own, (fresh) => { policy = fresh; fill(); }, saved);
  });
  return { node: d.node, open(of) {
    policy = of;
    write(d.title, "Idle VMs");
    write(d.note, "Of the whole host. An empty field leaves the value to what serve was told, or the default.");
    fill();
    d.node.showModal();
  } };
}

// put replaces a policy, unless somebody else has done so meanwhile: then it is read anew.
async function put(policy, own, reloaded, saved) {
  try {
    saved(await call("PUT", policyPath(policy.vm), own, undefined, { "If-Match": /^"/.test(policy.version) ? policy.version : `"${policy.version}"` }));
  } catch (refusal) {
    if (refusal.problem?.status !== 412) throw refusal;
    const fresh = await call("GET", policyPath(policy.vm));
    saved(fresh);
    reloaded(fresh);
    throw new Refusal({ status: 412, detail: "Somebody else has changed this policy meanwhile. Their values are shown now; yours were not saved." });
  }
}

// dialog makes one with a field for each entry; hidden until it is opened.
function dialog(id, list, ...before) {
  const title = el("h2", { id: `${id}-title` }), note = el("p", { class: "muted small-text" }), error = el("p", { class: "form-error", role: "alert" });
  const inputs = list.map((f) => {
    const of = `${id}-${f.key}`, unitNode = el("small", {}), hint = el("small", { id: of + "-hint" });
    const input = f.options ? el("select", { id: of }, el("option", { value: "" }), ...f.options.map(([value, text]) => el("option", { value }, text)))
      : el("input", { id: of, type: "number", min: 0, step: "any", inputMode: "decimal" });
    input.setAttribute("aria-describedby", of + "-hint");
    return { ...f, input, hint, unitNode, node: el("div", { class: "field" }, el("label", { htmlFor: of }, f.label, unitNode), input, hint, el("p", { class: "field-error" })) };
  });
  const cancel = el("button", { type: "button", class: "quiet", onclick: () => node.close() }, "Cancel");
  const form = el("form", { method: "dialog", noValidate: true }, title, note, ...before, el("div", { class: "row" }, ...inputs.map((f) => f.node)), error, el("div", { class: "buttons" }, cancel, el("button", { class: "primary" }, "Save")));
  const node = el("dialog", { id: `${id}-dialog`, "aria-labelledby": `${id}-title` }, form);
  return { node, form, title, note, inputs, submit(act) {
    form.addEventListener("submit", (event) => { event.preventDefault(); send(form, node, async () => act()); });
  } };
}

// inForce is what holds now and where it comes from; for all resources, where they have it in common.
function inForce(policy, resource, key) {
  const rules = policy.rules.filter((r) => (resource === "all" ? !policy.own.rules?.[r.resource] : r.resource === resource)), first = rules[0];
  if (!first || rules.some((r) => r[key] !== first[key])) return [null, first ? "differs by resource" : "set for each resource"];
  return [first[key], first.sources?.[key]];
}

// showField puts what was set here into a field, and what holds without it beside.
function showField(f, own, effective, from) {
  const written = effective === null || effective === undefined ? "" : f.options ? effective : String(rounded(effective / f.factor));
  write(f.unitNode, f.unit ?? "");
  if (f.options) write(f.input.options[0], `not set here${own === undefined && written ? `: ${written}` : ""}`);
  else f.input.placeholder = own === undefined ? written : "";
  f.input.value = own === undefined ? "" : f.options ? own : rounded(own / f.factor);
  write(f.hint, written ? `now ${written}${f.unit === "%" ? " %" : ""}, ${source(from)}` : from ?? "");
}

// readField is what was typed; nothing is undefined.
function readField(f) {
  const text = f.input.value.trim();
  if (f.input.validity.badInput) throw new Refusal({ errors: [{ pointer: "/" + f.node.dataset.field, detail: "is not a number" }] });
  if (!text) return undefined;
  return f.options ? text : rounded(Number(text) * f.factor);
}

const rounded = (n) => Number(n.toPrecision(12));
