// The autoscaling page: the policy, how big VMs were and why, idle VMs, advice.
import { call } from "/lib/api.js";
import { el, section, write } from "/lib/dom.js";
import { schedule, state } from "/lib/live.js";
import { Poll } from "/lib/poll.js";
import { go, setQuery } from "/lib/router.js";
import { keepVM } from "/parts/vm_actions.js";
import { adviceList, readAdvice } from "/scaling/advice.js";
import { Decisions, decisionTable } from "/scaling/decisions.js";
import { idleList } from "/scaling/idle.js";
import { policyCard } from "/scaling/policy.js";
import { idleForm, policyForm, policyPath } from "/scaling/policy_form.js";
import { drawnResources, sizeChart } from "/scaling/size_chart.js";
import { sizes } from "/scaling/sizes.js";

const decisionsEvery = 2000, policyEvery = 5000, adviceEvery = 15000; // ms
const statusEvery = (vms) => 2000 * Math.max(1, vms / 50); // the status of many is long

export function open(root, _, query) {
  const page = new ScalingPage(root);
  page.query(query);
  page.begin();
  return { title: "Autoscaling", draw: () => page.draw(), frame: (topic) => page.chart?.frame(topic), resumed: () => page.resumed(), query: (q) => page.query(q), close: () => page.close() };
}

class ScalingPage {
  constructor(root) {
    Object.assign(this, { vm: "", resource: "cpus", range: "5m", policy: null, status: null, chart: null, of: "", decisions: new Decisions(), polls: [] });
    this.build(root);
  }

  build(root) {
    const admin = state.role !== "viewer", button = (id, text, onclick) => (admin ? el("button", { type: "button", class: "small", id, onclick }, text) : null);
    this.select = el("select", { id: "scaling-vm", onchange: () => go(this.address(this.select.value)) });
    this.gone = el("p", { class: "empty", role: "status", hidden: true });
    this.word = el("p", { class: "muted small-text", id: "scaling-state" });
    this.card = policyCard();
    this.idle = idleList();
    this.table = decisionTable();
    this.sizes = sizes();
    this.advice = adviceList(() => this.advicePoll.soon());
    this.place = el("div", { id: "size" });
    this.keepButton = button("keep-vm", "Keep", () => this.keep());
    const saved = (policy) => { this.showPolicy(policy); this.statusPoll.soon(); };
    this.forms = admin ? [policyForm(saved), idleForm(() => this.policyPoll.soon())] : [];
    const edit = button("edit-policy", "Change", () => this.policy && this.forms[0].open(this.policy));
    const editIdle = button("edit-idle", "Change", () => this.editIdle());
    const policy = section("Policy", "policy-title", this.card.node), idle = section("Idle VMs", "idle-title", this.idle.node);
    for (const node of [this.card.own, this.card.badge, this.keepButton, edit]) if (node) policy.firstChild.append(node);
    policy.firstChild.classList.add("wrap");
    if (editIdle) idle.firstChild.append(editIdle);
    this.ofVM = [policy, this.place, section("Decisions", "decisions-title", this.table.node), section("Recommendations", "advice-title", this.advice.node)];
    root.append(el("div", { class: "section-head wrap page-head" }, el("h1", { tabIndex: -1 }, "Autoscaling"), el("label", { htmlFor: "scaling-vm" }, "VM"), this.select), this.gone, this.word,
      idle, ...this.ofVM, ...this.forms.map((f) => f.node));
  }

  begin() {
    this.statusPoll = this.poll(2000, async () => {
      this.status = await call("GET", "/autoscale/status" + (this.vm ? "?vm=" + encodeURIComponent(this.vm) : ""));
      this.statusPoll.ms = statusEvery(this.status.vms.length);
      this.idle.show(this.status.idle);
      write(this.word, words(this.status));
      schedule();
    }, (text) => write(this.word, text));
    this.policyPoll = this.poll(policyEvery, async () => {
      const { vm } = this, policy = await call("GET", policyPath(vm));
      if (vm === this.vm) this.showPolicy(policy);
    }, (text) => this.card.excuse(text));
    this.decisionPoll = this.poll(decisionsEvery, async () => { await this.decisions.read(); schedule(); }, (text) => this.table.excuse(text));
    this.advicePoll = this.poll(adviceEvery, async () => {
      const { vm } = this, advice = await readAdvice(vm);
      if (vm === this.vm) this.advice.show(advice);
    }, (text) => this.advice.excuse(text));
  }

  // poll reads again and again, and says what is wrong when that fails.
  poll(ms, read, excuse) {
    const poll = new Poll(ms, async () => {
      try { await read(); } catch (refusal) { this.fail(refusal, excuse); }
    });
    this.polls.push(poll);
    return poll;
  }

  fail(refusal, excuse) {
    if (refusal.problem?.code === "vm_not_found" && this.vm) {
      this.gone.replaceChildren(`${refusal.message}. `, el("a", { href: "/autoscaling" }, "All VMs"));
      return this.hide(true);
    }
    excuse(`${refusal.message}${refusal.problem?.hint ? `. ${refusal.problem.hint}` : ""}`);
  }

  // hide leaves of the page what does not need the VM that is not there.
  hide(gone) {
    this.gone.hidden = !gone;
    for (const node of this.ofVM) node.hidden = gone;
  }

  close() {
    for (const poll of this.polls) poll.stop();
    this.chart?.close();
  }

  resumed() {
    this.chart?.resumed();
    for (const poll of this.polls) poll.soon();
  }

  // query takes VM, resource and range from the address.
  query(q) {
    const vm = q.get("vm") ?? "", resource = drawnResources.includes(q.get("resource")) ? q.get("resource") : "cpus";
    this.range = q.get("range") ?? "5m";
    this.resource = resource;
    if (vm !== this.vm || !this.of) {
      this.vm = vm;
      this.policy = this.status = null;
      this.decisions.of(vm);
      this.hide(false);
      for (const poll of this.polls) poll.soon();
    } else {
      this.chart?.query(this.range);
    }
    schedule();
  }

  address(vm) {
    const q = new URLSearchParams({ ...(vm ? { vm } : {}), ...(vm && this.resource !== "cpus" ? { resource: this.resource } : {}), ...(this.range !== "5m" ? { range: this.range } : {}) }).toString();
    return "/autoscaling" + (q ? "?" + q : "");
  }

  find() { return state.vms.find((vm) => vm.id === this.vm || vm.name === this.vm); }

  showPolicy(policy) {
    this.policy = policy;
    this.card.show(policy);
    schedule();
  }

  async editIdle() {
    try { this.forms[1].open(this.policy && !this.policy.vm ? this.policy : await call("GET", policyPath(""))); } catch (refusal) { this.fail(refusal, (text) => write(this.word, text)); }
  }

  async keep() {
    const vm = this.find();
    if (vm) await keepVM(vm.id, !vm.autoscale?.keep);
    this.policyPoll.soon();
  }

  draw() {
    const vm = this.find();
    this.drawSelect();
    this.drawSize(vm);
    this.idle.draw();
    this.table.draw(this.decisions, vm?.name ?? this.vm);
    if (!this.keepButton) return;
    this.keepButton.hidden = !vm;
    write(this.keepButton, vm?.autoscale?.keep ? "Do not keep it when idle" : "Keep it when idle");
  }

  drawSelect() {
    const vms = [...state.vms].sort((a, b) => a.name.localeCompare(b.name)), key = vms.map((vm) => vm.id + vm.name).join() + this.vm;
    if (this.select.dataset.key === key) return;
    this.select.dataset.key = key;
    const chosen = this.find();
    this.select.replaceChildren(el("option", { value: "" }, "all, and the host"), ...vms.map((vm) => el("option", { value: vm.id }, vm.name)), ...(this.vm && !chosen ? [el("option", { value: this.vm }, this.vm)] : []));
    this.select.value = chosen?.id ?? this.vm;
  }

  // drawSize shows the chart of the chosen VM, or all VMs where none is.
  drawSize(vm) {
    const key = vm ? `${vm.id}/${this.resource}` : "all";
    if (key !== this.of) {
      this.of = key;
      this.chart?.close();
      this.chart = vm ? this.makeChart(vm) : null;
      this.place.replaceChildren(vm ? this.chart.node : this.sizes.node);
    }
    if (this.chart) this.chart.draw(); else this.sizes.draw(this.vm ? null : this.status);
  }

  makeChart(vm) {
    return sizeChart({ vm, resource: this.resource, range: this.range, decisions: () => this.decisions.list,
      rule: () => (this.policy?.vm ? this.policy.rules.find((r) => r.resource === this.resource) : null),
      scaled: () => this.status?.vms.find((s) => s.vm === vm.id)?.resources.find((r) => r.resource === this.resource),
      onResource: (resource) => { setQuery({ resource: resource === "cpus" ? null : resource }, true); this.query(new URLSearchParams(location.search)); } });
  }
}

function words(status) {
  const how = { events: "The kernel wakes the agent when a VM is short of CPU or meets its memory limit.", polling: "The agent looks once a second." }[status.wakeups] ?? "";
  return `${how}${status.note ? ` ${status.note}.` : ""}`;
}
