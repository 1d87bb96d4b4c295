// Drives the dashboard of a running agent in Chromium: node test.mjs LOGIN-LINK SCREENSHOT-DIR.
// The agent has no VMs at the start, and dies and comes back when a VM called restart-agent appears.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { budgets, chartPages } from "./pages.mjs";
import { scalingPage } from "./scaling.mjs";

const [link, dir] = process.argv.slice(2);
const origin = new URL(link).origin;
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: "dark" });
page.setDefaultTimeout(30000);

let restarting = false;
const complaints = [];
page.on("pageerror", (e) => complaints.push(`page error: ${e.message}`));
page.on("console", (m) => { if (m.type() === "error" && !restarting) complaints.push(`console: ${m.text()} ${m.location()?.url ?? ""}`); });
page.on("dialog", (d) => { complaints.push(`a dialog opened: ${d.message()}`); d.dismiss(); });
await page.route((url) => url.origin !== origin, (route) => { complaints.push(`asks for ${route.request().url()}`); route.abort(); });

const step = async (what, act) => {
  const began = Date.now();
  await act();
  console.log(`ok  ${what} (${Date.now() - began} ms)`);
};
const eventually = async (what, check) => {
  for (const end = Date.now() + 30000; ;) {
    if (await check()) return;
    if (Date.now() > end) throw new Error(`not within 30 s: ${what}`);
    await new Promise((next) => setTimeout(next, 100));
  }
};
// reads waits until a place that the page fills in by itself has a text.
const reads = async (where, pattern) => {
  const place = typeof where === "string" ? page.locator(where) : where;
  for (const end = Date.now() + 30000; ;) {
    const text = await place.textContent();
    if (pattern.test(text)) return;
    if (Date.now() > end) assert.match(text, pattern, `${where}, after 30 s`);
    await new Promise((next) => setTimeout(next, 100));
  }
};
const shot = async (name) => {
  await page.evaluate(() => scrollTo(0, 0)); // else the bar is in the middle
  await page.screenshot({ path: `${dir}/${name}.png`, fullPage: true });
};
// shots takes a picture in each width and colour.
const shots = async (name) => {
  const before = page.viewportSize();
  for (const [width, colorScheme] of [[1400, "dark"], [1400, "light"], [400, "dark"], [400, "light"]]) {
    await page.setViewportSize({ width, height: 900 });
    await page.emulateMedia({ colorScheme });
    await page.waitForTimeout(300);
    await fits(`${name} at ${width} px`);
    await shot(`${name}-${width}-${colorScheme}`);
  }
  await page.setViewportSize(before);
  await page.emulateMedia({ colorScheme: "dark" });
};
const card = (name) => page.locator(".card").filter({ has: page.getByRole("heading", { name, exact: true }) });
const row = (name) => page.locator("#cloudlets tr").filter({ has: page.locator("td.name div", { hasText: new RegExp(`^${name}$`) }) });
const live = () => page.locator("#link.good", { hasText: "live" }).waitFor();
const fits = async (what) => {
  let scroll, view; // what was drawn wider follows within a moment
  for (let i = 0; i < 20; i++) {
    [scroll, view] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    if (scroll <= view) return;
    await page.waitForTimeout(100);
  }
  assert.ok(scroll <= view, `${what}: ${scroll} px wide on a screen of ${view}`);
};

try {
  await step("without a session there is a login and nothing else", async () => {
    await page.goto(origin);
    await page.getByRole("heading", { name: "Log in" }).waitFor();
    assert.equal(await page.locator("#board").isVisible(), false);
    await page.fill("#code", "wrong");
    await page.keyboard.press("Enter");
    await eventually("a wrong code is told", async () => (await page.textContent("#login-error")).length > 5);
    complaints.length = 0; // Chromium logs each 401
  });

  await step("the one-time link logs in, and works once", async () => {
    const response = await page.goto(link);
    if (!response) await page.reload(); // only the fragment differed
    await live();
    assert.ok(!page.url().includes("code="), "the code stays in the address");
    const headers = (await page.request.get(origin)).headers();
    assert.match(headers["content-security-policy"], /default-src 'none'/);
    const again = await page.request.post(origin + "/api/v1/login", { data: { code: link.split("#code=")[1] }, headers: { origin } });
    assert.ok(again.status() >= 400, `used twice: ${again.status()}`);
  });

  await step("tiles tell of the host; what is empty says what to do", async () => {
    await eventually("CPU in percent", async () => /^\d+ %$/.test(await page.textContent("#tile-cpu [data-k=value]")));
    await reads("#tile-memory", /of [\d.]+ [GM]iB/);
    await reads("#vms-empty", /cloudflash vm create/);
    await shot("empty");
  });

  await step("a bad value is explained beside its field", async () => {
    await page.getByRole("button", { name: "Create VM" }).click();
    await page.keyboard.type("Not A Name!");
    await page.keyboard.press("Enter");
    const error = page.locator('#vm-form [data-field="name"] .field-error');
    await eventually("an error at the name", async () => (await error.textContent()).length > 5);
    assert.ok(await page.locator("#vm-dialog").isVisible());
    await shot("create-error");
    complaints.length = 0; // Chromium logs each 422
  });

  await step("a VM is created by keyboard and shows live", async () => {
    await page.locator("#vm-name").fill("web");
    await page.locator("#vm-name").press("Enter");
    await page.locator("#vm-dialog").waitFor({ state: "hidden" });
    await card("web").waitFor();
    await eventually("it runs", async () => /running|idle/.test(await card("web").locator("[data-k=state]").textContent()));
    await reads("#vms-count", /^1$/);
    await eventually("its address", async () => /10\.88\.0\.\d+/.test(await card("web").locator("[data-k=address]").textContent()));
    await eventually("its storage", async () => /of 10 GiB/.test(await card("web").locator("[data-k=storage]").textContent()));
  });

  await step("a cloudlet is submitted, counts down and uses CPU", async () => {
    await page.getByRole("button", { name: "Submit cloudlet" }).click();
    await page.locator("#c-command").fill("while :; do :; done");
    await page.locator("#c-name").fill("busy");
    await page.locator("#c-deadline").fill("600");
    await page.locator("#cloudlet-form button.primary").click();
    await row("busy").waitFor();
    await eventually("it runs", async () => (await row("busy").locator("[data-k=state]").textContent()) === "running");
    const left = () => row("busy").locator("[data-k=deadline]").textContent();
    const first = await left();
    assert.match(first, /^in /);
    await eventually("the countdown moves", async () => (await left()) !== first);
    await eventually("the VM's CPU is shown", async () => parseFloat(await card("web").locator("[data-k=cpu]").textContent()) > 0.3);
  });

  const hostile = `<img src=x onerror="alert(1)"><script>alert(2)</script>`;
  await step("output is followed, and text stays text", async () => {
    await page.getByRole("button", { name: "Submit cloudlet" }).click();
    await page.locator("#c-command").fill(`i=0; while :; do i=$((i+1)); echo 'line' $i '${hostile}'; sleep 0.3; done`);
    await page.locator("#c-name").fill("noisy");
    await page.locator("#cloudlet-form button.primary").click();
    await row("noisy").waitFor();
    await row("noisy").getByRole("button", { name: "Output" }).click();
    await eventually("three lines", async () => (await page.textContent("#output")).includes(`line 3 ${hostile}`));
    assert.equal(await page.locator("#output *").count(), 0);
    await shot("output");
    await page.keyboard.press("Escape");
    await page.locator("#output-dialog").waitFor({ state: "hidden" });
  });

  await step("freeze and thaw", async () => {
    await card("web").getByRole("button", { name: "Freeze" }).click();
    await eventually("frozen", async () => (await card("web").locator("[data-k=state]").textContent()) === "frozen");
    await card("web").getByRole("button", { name: "Thaw" }).click();
    await eventually("running", async () => (await card("web").locator("[data-k=state]").textContent()) === "running");
  });

  await step("resize takes the current values and changes what was moved", async () => {
    await card("web").getByRole("button", { name: "Resize" }).click();
    await page.locator("#vm-cpus").fill("0.1"); // of an emulated processor, which others want as well
    await page.locator("#vm-submit").click();
    await page.locator("#vm-dialog").waitFor({ state: "hidden" });
    await eventually("a tenth of a core", async () => /of 0\.1 cores/.test(await card("web").locator("[data-k=cpu]").textContent()));
  });

  await step("the log tells of it", async () => {
    await eventually("events", async () => /VM web created[^]*/.test(await page.textContent("#events")));
    await shots("busy");
  });

  await scalingPage({ browser, page, origin, step, eventually, reads, shots, fits, complaints });
  await chartPages({ page, origin, step, eventually, reads, shots, fits, complaints, card });
  await budgets({ browser, page, origin, step });
  await live();

  await step("the agent dies: the page says so and comes back by itself", async () => {
    restarting = true;
    await page.evaluate(() => { window.sameDocument = true; });
    await page.evaluate(() => fetch("/api/v1/vms", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ name: "restart-agent" }) }).then(() => 0, () => 0)); // killed perhaps before it answers
    await page.locator("#link.bad, #link.warn").waitFor();
    await shot("lost");
    await live();
    assert.equal(await page.evaluate(() => window.sameDocument), true, "the page was loaded anew");
    await eventually("the same cloudlet runs on", async () => (await row("busy").locator("[data-k=state]").textContent()) === "running");
    const before = parseFloat(await row("busy").locator("[data-k=cpu]").textContent());
    await eventually("its numbers move again", async () => parseFloat(await row("busy").locator("[data-k=cpu]").textContent()) > before);
    restarting = false;
    complaints.length = 0;
  });

  await step("a phone: nothing is cut off", async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    await fits("board");
    await shot("phone");
    await page.getByRole("button", { name: "Create VM" }).click();
    await fits("dialog");
    await page.keyboard.press("Escape");
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.emulateMedia({ colorScheme: "light" });
    await shot("light");
  });

  await step("every input has a label, every button a name, focus is seen", async () => {
    const nameless = await page.evaluate(() => [...document.querySelectorAll("input,select,textarea")].filter((e) => !e.labels?.length && !e.getAttribute("aria-label")).map((e) => e.id));
    assert.deepEqual(nameless, []);
    await page.keyboard.press("Tab");
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none");
  });

  await step("cancel and delete, after a question", async () => {
    await row("noisy").getByRole("button", { name: "Cancel" }).click();
    await eventually("cancelled", async () => (await row("noisy").locator("[data-k=state]").textContent()) === "cancelled");
    for (const name of ["web", "restart-agent"]) {
      await card(name).getByRole("button", { name: "Delete" }).click();
      await page.locator("#confirm-yes").click();
      await card(name).waitFor({ state: "detached" });
    }
    await reads("#vms-count", /^0$/);
  });

  await step("log out", async () => {
    await page.locator("#logout").click();
    await page.getByRole("heading", { name: "Log in" }).waitFor();
    complaints.splice(0, complaints.length, ...complaints.filter((c) => !c.includes("401")));
  });

  assert.deepEqual(complaints, []);
} catch (error) {
  await shot("failed");
  console.error(`FAIL ${error.message}\ncomplaints: ${JSON.stringify(complaints, null, 2)}\nscreenshot: ${dir}/failed.png`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
