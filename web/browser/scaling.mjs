// The Autoscaling page and the notifications. A VM called web is busy; the agent was told to leave limits and idle VMs
// alone, so that everything is switched on here.
import assert from "node:assert/strict";

const call = (page, method, path, body, headers = {}) => page.evaluate(async ([method, path, body, headers]) => {
  const r = await fetch("/api/v1" + path, { method, headers: { ...headers, ...(body === undefined ? {} : { "Content-Type": "application/json" }) }, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await r.text();
  return { status: r.status, ...(text ? JSON.parse(text) : {}) };
}, [method, path, body, headers]);
const get = (page, path) => call(page, "GET", path);

// forget drops what Chromium logs of an answer that was wanted.
const forget = (complaints, status) => complaints.splice(0, complaints.length, ...complaints.filter((c) => !c.includes(String(status))));

export async function scalingPage(all) {
  const { page, step, eventually, reads } = all, vm = (await get(page, "/vms/web")).id;
  const rule = (resource) => page.locator(`#policy-rules tr[data-resource="${resource}"]`);
  const edit = async (resource) => {
    await page.locator("#edit-policy").click();
    await page.locator("#policy-dialog").waitFor();
    await page.selectOption("#policy-resource", resource);
  };
  const save = () => page.locator("#policy-dialog button.primary").click();
  const saved = () => page.locator("#policy-dialog").waitFor({ state: "hidden" });
  const choose = async (name) => {
    await page.selectOption("#scaling-vm", { label: name });
    await eventually(`the policy of ${name}`, async () => /cores/.test(await rule("cpus").textContent()));
  };
  const steps = { ...all, vm, rule, edit, save, saved, choose };

  await step("the policy has the API's values, each with where it comes from", async () => {
    await page.getByRole("link", { name: "Autoscaling", exact: true }).click();
    await eventually("eight rules", async () => (await page.locator("#policy-rules tr").count()) === 8);
    const { rules, idle } = await get(page, "/autoscale/policy");
    for (const r of rules) {
      const text = await rule(r.resource).textContent();
      assert.ok(text.includes(`${Math.round(r.up * 100)} %`) && text.includes(`${Math.round(r.down * 100)} %`), `${r.resource}: ${text}`);
      assert.equal(await rule(r.resource).locator("td small").evaluateAll((list) => list.filter((s) => !s.textContent).length), 0, "a value without a source");
    }
    await reads(rule("cpus"), /offset by serve/);
    await reads("#idle-rule", idle.after_seconds ? /announced/ : /not deleted \(set by serve\)/);
  });
  await policySteps(steps);
  await growth(steps);
  await idleSteps(steps);
  await adviceSteps(steps);
  await watching(steps);
}

async function policySteps({ page, step, eventually, complaints, vm, rule, edit, save, saved, choose }) {
  await step("thresholds that cross are explained at the field, by keyboard too", async () => {
    await choose("web");
    assert.match(page.url(), new RegExp(`vm=${vm}`));
    await page.locator("#edit-policy").focus();
    await page.keyboard.press("Enter");
    await page.selectOption("#policy-resource", "cpus");
    await page.selectOption("#policy-mode", "auto"); // what is off may say what it likes
    await page.fill("#policy-up", "20");
    await page.fill("#policy-down", "80");
    await page.keyboard.press("Enter");
    const errors = page.locator("#policy-dialog .field-error:not(:empty)");
    await eventually("a complaint", async () => (await errors.count()) > 0);
    await eventually("the field has the focus", () => page.evaluate(() => /^policy-(up|down)$/.test(document.activeElement.id)));
    assert.equal(await page.locator("#policy-dialog").isVisible(), true);
    await page.keyboard.press("Escape");
    await saved();
    await eventually("the focus is back", () => page.evaluate(() => document.activeElement.id === "edit-policy"));
    forget(complaints, 422);
  });

  await step("what somebody else has set is not overwritten", async () => {
    await edit("cpus");
    await page.fill("#policy-up", "70");
    const put = await call(page, "PUT", `/autoscale/policy?vm=${vm}`, { rules: { cpus: { up: 0.75 } } });
    assert.equal(put.status, 200);
    await save();
    await eventually("it is said", async () => /Somebody else/.test(await page.textContent("#policy-dialog .form-error")));
    await eventually("what they have set", async () => (await page.inputValue("#policy-up")) === "75");
    await page.fill("#policy-up", "70");
    await save();
    await saved();
    await eventually("it is shown", async () => /70 %set for this VM/.test(await rule("cpus").textContent()));
    assert.equal((await get(page, `/autoscale/policy?vm=${vm}`)).own.rules.cpus.up, 0.7);
    forget(complaints, 412);
  });

  await step("recommend only, for the whole host", async () => {
    await page.selectOption("#scaling-vm", "");
    await eventually("the host's policy", async () => /quarter/.test(await rule("cpus").textContent()));
    assert.doesNotMatch(page.url(), /vm=/);
    await edit("all");
    await page.selectOption("#policy-mode", "recommend");
    await save();
    await saved();
    await eventually("the badge", async () => /recommend only/.test(await page.textContent("#policy-badge")));
    await edit("all");
    await page.selectOption("#policy-mode", "");
    await save();
    await saved();
    await eventually("off again", async () => /^off/.test(await page.textContent("#policy-badge")));
  });
}

async function growth({ page, step, eventually, reads, shots, fits, vm, edit, save, saved, choose }) {
  await step("switched on, a busy VM grows: the decision, its effect, the chart", async () => {
    await choose("web");
    await reads("#decisions-empty", /cloudlet run/);
    const before = (await get(page, "/vms/web")).limits.cpus;
    await edit("cpus");
    await page.selectOption("#policy-mode", "auto");
    await save();
    await saved();
    const grown = page.locator("#decisions tr").filter({ hasText: "▲" }).filter({ hasText: "applied" });
    await eventually("it has grown", async () => (await grown.count()) > 0);
    const { items } = await get(page, `/autoscale/events?vm=${vm}&limit=1000`), first = items.find((d) => d.action === "grow" && d.result === "applied");
    assert.ok(first.to > before && first.from === before, JSON.stringify(first));
    const row = () => grown.last().textContent();
    assert.match(await row(), /CPU.*(usage|throttled|pressure)/);
    assert.ok((await row()).includes(first.reason), await row());
    await eventually("when the kernel had it, and its effect", async () => /in the kernel after \d.*s later\)/.test(await row()));
    console.log(`    ${before} → ${first.to} cores, ${/in the kernel after [\d.]+ m?s/.exec(await row())[0]}`);
    const label = () => page.locator("#chart-size canvas").getAttribute("aria-label");
    await eventually("the chart tells of it", async () => /decisions?, the last: .*grow 0\.1 cores → /.test(await label()));
    await reads("#chart-size .legend", /grows above0?\.?\d.*shrinks below/);
    await reads("#size-legend", /Grows above 70 % of the limit, shrinks below 20 %/);
    await page.locator("#chart-size").getByRole("button", { name: "Show table" }).click();
    const limits = await page.locator("#chart-size tbody td:nth-of-type(2)").allTextContents();
    assert.ok(new Set(limits).size > 1, `the limit is a step: ${limits.slice(0, 5)}`);
    await page.locator("#chart-size").getByRole("button", { name: "Hide table" }).click();
    await shots("autoscaling");
  });

  await step("resource and range are in the address; it fits on 320 px", async () => {
    for (const name of ["Memory", "Bandwidth", "Storage"]) {
      await page.getByRole("group", { name: "Resource" }).getByRole("button", { name }).click();
      await eventually(name, async () => (await page.textContent("#chart-size h3")).startsWith(name) && /used [\d.]+/.test(await page.locator("#chart-size canvas").getAttribute("aria-label")));
    }
    assert.match(page.url(), /resource=storage_bytes/);
    await page.goBack();
    await eventually("Back", async () => (await page.textContent("#chart-size h3")).startsWith("Bandwidth"));
    await page.getByRole("group", { name: "Range" }).getByRole("button", { name: "1h" }).click();
    await page.reload();
    await eventually("the same after a reload", async () => (await page.textContent("#chart-size h3")).startsWith("Bandwidth") && /last hour/.test(await page.locator("#chart-size canvas").getAttribute("aria-label")));
    const before = page.viewportSize();
    await page.setViewportSize({ width: 320, height: 800 });
    await fits("autoscaling at 320 px");
    await page.locator("#edit-policy").click();
    await fits("its dialog at 320 px");
    await page.keyboard.press("Escape");
    await page.setViewportSize(before);
  });
}

async function idleSteps({ page, origin, step, eventually, reads, shots }) {
  const idle = ["idle-1", "idle-2", "idle-3", "idle-4"], notices = page.locator(".notice");
  await step("idle VMs count down, are told of on every page, and can be kept", async () => {
    for (const name of idle) assert.equal((await call(page, "POST", "/vms", { name, cpus: 0.1, memory_bytes: 64 * 2 ** 20, storage_bytes: 64 * 2 ** 20 })).status, 201);
    await page.locator("#edit-idle").click();
    await page.fill("#idle-after_seconds", "5");
    await page.fill("#idle-notice_seconds", "300");
    await page.locator("#idle-dialog button.primary").click();
    await page.locator("#idle-dialog").waitFor({ state: "hidden" });
    await eventually("the rule", async () => /for 5 s \(set for the host\) is announced, and deleted 5 min later/.test(await page.textContent("#idle-rule")));
    await eventually("three notices of four", async () => (await notices.count()) === 3);
    await eventually("countdowns", async () => (await page.locator("#countdowns li").count()) === idle.length);
    const left = () => page.locator("#countdowns li .left").first().textContent(), first = await left();
    assert.match(first, /^deleted in [45] min( \d+ s)?$/);
    await eventually("they count", async () => (await left()) !== first);
    await shots("autoscaling-idle");
    for (const name of idle) {
      await page.getByRole("button", { name: `Keep ${name}`, exact: true }).click();
      await eventually(`${name} counts down no more`, async () => !(await page.textContent("#countdowns")).includes(name));
      await eventually(`${name} is kept`, async () => (await get(page, `/vms/${name}`)).autoscale.keep); // being touched ends its notice before that is stored
    }
    await reads("#idle-empty", /Kept, idle or not: .*idle-1/);
  });

  await step("a notice can be dismissed, and does not come back", async () => {
    await call(page, "PATCH", "/vms/idle-1", { keep: false });
    await page.getByRole("link", { name: "Overview", exact: true }).click();
    await eventually("a notice on the overview", async () => (await notices.filter({ hasText: "idle-1" }).count()) === 1);
    await eventually("the card counts down", async () => /deleted in \d+ (s|min)/.test(await page.locator(".card").filter({ has: page.getByRole("heading", { name: "idle-1", exact: true }) }).textContent()));
    await notices.filter({ hasText: "idle-1" }).getByRole("button").click();
    await eventually("it is gone", async () => (await notices.filter({ hasText: "idle-1" }).count()) === 0);
    await page.reload();
    await page.locator(".card").first().waitFor();
    await page.waitForTimeout(2000);
    assert.equal(await notices.count(), 0);
    await page.goto(origin + "/autoscaling");
    await page.locator("#edit-idle").click();
    for (const field of ["after", "notice"]) await page.fill(`#idle-${field}_seconds`, "");
    await page.locator("#idle-dialog button.primary").click();
    await eventually("off again", async () => /not deleted/.test(await page.textContent("#idle-rule")));
    for (const name of idle) await call(page, "DELETE", `/vms/${name}`);
    await eventually("they are gone", async () => (await get(page, "/vms")).total === 1);
  });
}

async function adviceSteps({ page, origin, step, eventually, reads, shots, vm }) {
  await step("advice is applied after a question that names old and new, and undone", async () => {
    await page.goto(`${origin}/autoscaling?vm=${vm}`);
    const card = page.locator(`#advice [data-vm="${vm}"]`), buttons = card.locator("tbody button");
    await eventually("advice", async () => (await buttons.count()) > 0);
    const spec = (await get(page, "/vms/web")).spec, line = card.locator("tbody tr").filter({ has: page.locator("button") }).first(), resource = await line.getAttribute("data-resource");
    const rec = (await get(page, "/recommendations/web")).recommendations.find((r) => r.resource === resource);
    await reads(line, /%, (very low|low|fair|full): /);
    console.log(`    ${resource}: ${rec.spec} → ${rec.target}, confidence ${rec.confidence.toFixed(4)}`);
    await line.locator("button").click();
    await eventually("the careful answer has the focus", () => page.evaluate(() => document.activeElement.textContent === "Cancel"));
    await reads("#confirm-text", /: .* → .*It can be undone/);
    await shots("autoscaling-apply");
    await page.locator("#confirm-yes").click();
    await card.getByRole("button", { name: "Undo" }).waitFor();
    const changed = (await get(page, "/vms/web")).spec;
    assert.notEqual(changed[resource] ?? changed.io[resource], spec[resource] ?? spec.io[resource]);
    await card.getByRole("button", { name: "Undo" }).click();
    await page.locator("#confirm-yes").click();
    await card.getByRole("button", { name: "Undo" }).waitFor({ state: "detached" });
    assert.deepEqual((await get(page, "/vms/web")).spec, spec);
  });
}

async function watching({ browser, page, origin, step, eventually, complaints, vm, rule }) {
  await step("a viewer sees all of it and no form", async () => {
    const { code } = await call(page, "POST", "/login/codes", { role: "viewer" });
    const context = await browser.newContext(), viewer = await context.newPage();
    await viewer.goto(`${origin}/autoscaling?vm=${vm}#code=${code}`);
    await viewer.locator("#policy-rules tr").first().waitFor();
    await eventually("decisions", async () => (await viewer.locator("#decisions tr").count()) > 0);
    await eventually("advice", async () => (await viewer.locator("#advice article").count()) > 0);
    assert.deepEqual(await viewer.locator("#board dialog, #edit-policy, #edit-idle, #keep-vm, #advice button, #countdowns button").count(), 0);
    await context.close();
  });

  await step("a tab that nobody sees asks for nothing", async () => {
    await page.goto(`${origin}/autoscaling?vm=${vm}`);
    await rule("cpus").waitFor();
    await page.evaluate(() => Object.defineProperty(document, "hidden", { configurable: true, get: () => true }));
    await page.waitForTimeout(1000);
    const asked = [], listen = (r) => { if (r.url().includes("/api/")) asked.push(r.url()); };
    page.on("request", listen);
    await page.waitForTimeout(6000);
    page.off("request", listen);
    assert.deepEqual(asked, []);
    await page.evaluate(() => { delete document.hidden; });
    await page.goto(`${origin}/autoscaling?vm=nobody`);
    await eventually("who is not there is named", async () => /nobody/.test(await page.textContent("#board p[role=status]")));
    await page.goto(`${origin}/autoscaling`);
    forget(complaints, 404);
  });

  await step("limits are left alone again", async () => {
    await call(page, "PUT", `/autoscale/policy?vm=${vm}`, {});
    await call(page, "PATCH", "/vms/web", { cpus: 0.1 });
    await eventually("a tenth of a core", async () => (await get(page, "/vms/web")).limits.cpus === 0.1);
    await page.goto(origin);
  });
}
