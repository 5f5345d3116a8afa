// Checks of the page in a real Chromium, started by e2e/tests/browser. One line for each check; exit code 1 if one fails.
// PAGE_PICTURES: a directory to which the pictures of the book are written.
import { createRequire } from "node:module";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import assert from "node:assert/strict";

const { PAGE_MODULES, PAGE_URL, PAGE_NAMESPACE, PAGE_TOKEN, PAGE_STANDALONE, PAGE_HOSTILE, PAGE_PICTURES } = process.env;
const require = createRequire(join(PAGE_MODULES, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const hostile = JSON.parse(PAGE_HOSTILE);

const program = ["chromium", "chromium-browser", "google-chrome"].map((name) => {
  try {
    return execFileSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).trim();
  } catch {
    return "";
  }
}).find((path) => path !== "");
const profile = mkdtempSync(join(tmpdir(), "pgrail-browser-"));
// Without the network of the machine: Chromium must not look for its own services. Root has no sandbox.
const flags = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", ...(process.getuid() === 0 ? ["--no-sandbox"] : [])];
const context = await chromium.launchPersistentContext(profile, {
  executablePath: program, args: flags, viewport: { width: 1280, height: 800 }, timezoneId: "UTC", locale: "en-US", colorScheme: "light", reducedMotion: "reduce",
});
const page = context.pages()[0] ?? await context.newPage();
page.setDefaultTimeout(15_000);

// What must never happen, on any page: an error, a refused script, a dialog, a request to elsewhere.
const problems = [];
function watch(target) {
  target.on("pageerror", (error) => problems.push(`error: ${error.message}`));
  target.on("console", (message) => {
    // The answers 401, 403, 404 and 503 are logged by the browser; what the page makes of them is checked below.
    if (message.type() === "error" && !/Failed to load resource/.test(message.text())) problems.push(`console: ${message.text()}`);
  });
  target.on("dialog", (dialog) => {
    problems.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  target.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(PAGE_URL) && !url.startsWith("file:") && !url.startsWith("data:")) problems.push(`request: ${url}`);
  });
}
watch(page);

let passed = 0;
let failed = 0;
async function check(what, test) {
  const began = Date.now();
  try {
    await test();
    assert.deepEqual(problems.splice(0), []);
    passed += 1;
    console.log(`ok    ${what} (${Date.now() - began} ms)`);
  } catch (error) {
    failed += 1;
    problems.splice(0);
    console.log(`FAIL  ${what}\n      ${String(error.stack ?? error).replaceAll("\n", "\n      ")}`);
  }
}

// Accessibility by axe: WCAG 2.1 A and AA, contrast among them, and its best practices.
async function accessible(target = page) {
  await target.evaluate(axe);
  const { violations } = await target.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const found = violations.map((it) => `${it.id}: ${it.help}: ${it.nodes.slice(0, 3).map((node) => `${node.html} ${node.failureSummary}`).join(" | ")}`);
  assert.deepEqual(found, []);
}

async function picture(name, options = {}) {
  if (!PAGE_PICTURES) return;
  await page.screenshot({ path: join(PAGE_PICTURES, `page-${name}.png`), ...options });
}

const heading = (text, target = page) => target.getByRole("heading", { name: text, level: 1 }).waitFor();
const open = async (hash) => {
  await page.evaluate((to) => { location.hash = to; }, hash);
};
const fits = async () => {
  const [scroll, width] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(scroll <= width, `the page is ${scroll} wide on a screen of ${width}`);
};
const shop = `#/database/${PAGE_NAMESPACE}/shop`;

await check("the page asks for a token, and tells how to get one", async () => {
  await page.goto(PAGE_URL);
  await heading("Log in");
  await page.getByText("kubectl create token").waitFor();
  assert.match(await page.textContent("main"), /--audience pgrail/);
  await accessible();
});

await check("a token that is not valid is refused, with the reason", async () => {
  await page.getByLabel("Token").fill("not-a-token");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("alert").filter({ hasText: "does not accept this token" }).waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
});

await check("a valid token shows the databases, the worst first", async () => {
  await page.getByLabel("Token").fill(PAGE_TOKEN);
  await page.getByLabel("Token").press("Enter");
  await heading("Databases");
  const names = await page.locator("tbody th").allTextContents();
  assert.equal(names.length, 5);
  const states = await page.locator("tbody tr td:nth-child(2)").allTextContents();
  assert.match(states[0], /✗ not compliant/);
  assert.match(states[states.length - 1], /excluded/);
  assert.match(await page.textContent("main"), /production: \d+ violation/);
  await accessible();
  await picture("fleet");
});

await check("the token is in this tab only: no cookie, no local storage, no address", async () => {
  assert.deepEqual(await context.cookies(), []);
  assert.equal(await page.evaluate(() => localStorage.length), 0);
  assert.ok(!page.url().includes(PAGE_TOKEN.slice(0, 20)));
  assert.ok(!(await page.content()).includes(PAGE_TOKEN.slice(0, 20)));
});

await check("the list can be filtered", async () => {
  await page.getByLabel("Filter").fill("billing");
  assert.deepEqual(await page.locator("tbody th").allTextContents(), [`${PAGE_NAMESPACE}/billing`]);
  await page.getByText("1 database of 5 shown").waitFor();
  await page.getByLabel("Filter").fill("");
  await page.getByLabel("Verdict", { exact: true }).selectOption("excluded");
  assert.deepEqual(await page.locator("tbody th").allTextContents(), [`${PAGE_NAMESPACE}/sandbox`]);
  await page.getByLabel("Verdict", { exact: true }).selectOption("");
});

await check("a database: verdict, violations, conditions", async () => {
  await page.getByRole("link", { name: `${PAGE_NAMESPACE}/shop` }).first().click();
  await heading(`${PAGE_NAMESPACE}/shop`);
  assert.match(await page.textContent(".state"), /not compliant by production/);
  assert.match(await page.textContent(".state"), /Reachable: True/);
  await accessible();
});

await check("the graph: tables with rows at risk and guards, edges with their effects", async () => {
  const users = page.locator(".picture .node", { hasText: "public.users" });
  assert.match(await users.locator("title").textContent(), /rows at risk in 7 tables.*, guarded; in focus/);
  assert.match(await users.textContent(), /✓ guarded/);
  const orders = page.locator(".picture .node", { hasText: "public.orders" });
  assert.match(await orders.textContent(), /✗ NOT guarded/);
  const effects = new Set(await page.locator(".picture .effect").allTextContents());
  assert.deepEqual([...effects].sort(), ["CASCADE", "SET NULL"]);
  assert.equal(await page.locator(".picture .node").count(), 8);
  await page.locator("#part-graph").scrollIntoViewIfNeeded();
  await page.locator("#part-graph").evaluate((it) => it.scrollIntoView());
  await picture("graph");
});

await check("the graph can be walked with a mouse", async () => {
  await page.locator(".picture .node", { hasText: "public.leads" }).click();
  await page.getByRole("heading", { name: "public.leads", level: 3 }).waitFor();
  assert.match(await page.textContent(".about"), /Its rows are taken by a delete on.*public\.users CASCADE/s);
  assert.match(page.url(), /table=public\.leads/);
  await page.getByRole("navigation", { name: "Tables walked through" }).getByRole("link", { name: "public.users" }).click();
  await page.getByRole("heading", { name: "public.users", level: 3 }).waitFor();
});

await check("the graph can be walked with a keyboard", async () => {
  await page.locator(".picture .node.focus").focus();
  await page.keyboard.press("ArrowRight");
  const reached = await page.evaluate(() => document.activeElement.querySelector("title").textContent);
  assert.match(reached, /^public\.(leads|analytics|orders|teams):/);
  await page.keyboard.press("ArrowLeft");
  assert.match(await page.evaluate(() => document.activeElement.querySelector("title").textContent), /^public\.users:/);
  await page.keyboard.press("End");
  await page.keyboard.press("Enter");
  const last = await page.evaluate(() => document.activeElement.querySelector("title").textContent);
  assert.match(last, /in focus$/, "the keyboard stays on the table in focus");
  await page.getByLabel("Table in focus").selectOption({ label: "public.messages" });
  await page.getByRole("heading", { name: "public.messages", level: 3 }).waitFor();
});

await check("the graph as a list, for those who do not see it", async () => {
  await page.getByText("All tables as a list").click();
  const rows = page.getByRole("table", { name: "Tables of the cascade graph, worst first" }).getByRole("row");
  assert.equal(await rows.count(), 9);
  await accessible();
});

await check("an address with a table puts that table in focus", async () => {
  await open(`${shop}?table=public.orders`);
  await page.getByRole("heading", { name: "public.orders", level: 3 }).waitFor();
  await page.reload();
  await page.getByRole("heading", { name: "public.orders", level: 3 }).waitFor();
});

await check("guards: limits, blocked attempts over time, what is left of the window", async () => {
  const text = await page.textContent("section.guards");
  assert.match(text, /core.*✓ enforced/);
  assert.match(text, /Blocked attempts3, the last/);
  assert.match(text, /3 blocked attempts since|not known/);
  assert.match(text, /\d+ of 400 left/);
  await page.locator("#part-guards").evaluate((it) => it.scrollIntoView());
  await picture("guards");
});

await check("backups on a time line: verified, drilled, shrunk, kept, failed", async () => {
  const figure = page.getByRole("img", { name: /Time line of 14 backups/ });
  await figure.waitFor();
  const titles = await figure.locator("title").allTextContents();
  for (const wanted of [/verified/, /drilled: all rows were restored/, /rows were lost since the backup before/, /kept: \w+/, /failed/, /not verified/, /Pinned/]) {
    assert.ok(titles.some((title) => wanted.test(title)), `${wanted} is not in ${titles}`);
  }
  const list = await page.getByRole("table", { name: "Backups, newest first" }).textContent();
  assert.match(list, /public\.orders from 3,000 to 1,200/);
  assert.match(list, /<b>could not open<\/b>/, "a message is text");
  await page.locator("#part-backups").evaluate((it) => it.scrollIntoView());
  await picture("backups");
});

await check("restores", async () => {
  const list = await page.getByRole("table", { name: "Restores, newest first" }).textContent();
  assert.match(list, /orders-back.*✓ Succeeded.*1,800 of 1,800/);
  assert.match(list, /users-back.*✗ Failed.*the target schema exists/);
});

await check("names of a hostile database are text", async () => {
  await open(`#/database/${PAGE_NAMESPACE}/reports`);
  await heading(`${PAGE_NAMESPACE}/reports`);
  for (const name of hostile) {
    const at = `public.${name}`;
    await page.getByLabel("Table in focus").selectOption({ label: at });
    assert.equal(await page.locator(".about h3").textContent(), at);
    assert.match(await page.textContent("section.guards"), /hostile/);
  }
  assert.equal(await page.locator("script").count(), 1);
  assert.equal(await page.locator("img").count(), 0);
  await accessible();
});

await check("what is not known is not shown as good", async () => {
  await open(`#/database/${PAGE_NAMESPACE}/archive`);
  await heading(`${PAGE_NAMESPACE}/archive`);
  const state = await page.textContent(".state");
  assert.match(state, /✗ not compliant.*\? Ready: Unknown/s);
  assert.match(state, /Tablesnot known/);
  const good = await page.locator("section.graph .verdict.good, section.backups .verdict.good, section.guards .verdict.good").count();
  assert.equal(good, 0);
  assert.match(await page.textContent("section.guards"), /No TableGuard is declared/);
  assert.match(await page.textContent("section.backups"), /no backup that pgrail knows of/);
  await accessible();
});

await check("no access, and what does not exist, are pages of their own", async () => {
  await open("#/database/kube-system/shop");
  await heading("No access");
  await page.getByText("you have no right to get the ProtectedDatabase shop in the namespace kube-system").waitFor();
  await open(`#/database/${PAGE_NAMESPACE}/nothing`);
  await heading("Not found");
  await accessible();
});

for (const colorScheme of ["light", "dark"]) {
  await check(`on a phone, ${colorScheme}`, async () => {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.setViewportSize({ width: 360, height: 740 });
    await open("#/");
    await heading("Databases");
    await fits();
    await accessible();
    await open(shop);
    await heading(`${PAGE_NAMESPACE}/shop`);
    await fits();
    await accessible();
    await page.locator(".picture .node", { hasText: "public.leads" }).click();
    await page.getByRole("heading", { name: "public.leads", level: 3 }).waitFor();
    const [picture_, box] = [await page.locator(".picture").boundingBox(), await page.locator(".picture > svg").boundingBox()];
    assert.ok(box.width <= picture_.width + 1, `the graph is ${box.width} wide in ${picture_.width}`);
    await page.locator("#part-graph").evaluate((it) => it.scrollIntoView());
    if (colorScheme === "dark") await picture("phone");
  });
}

await check("a wide screen, dark", async () => {
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.emulateMedia({ colorScheme: "dark" });
  await open("#/");
  await heading("Databases");
  await accessible();
  await open(shop);
  await heading(`${PAGE_NAMESPACE}/shop`);
  await accessible();
});

await check("printed: no controls, nothing is cut off", async () => {
  await page.emulateMedia({ media: "print", colorScheme: "light" });
  assert.equal(await page.getByRole("button", { name: "Refresh" }).isVisible(), false);
  assert.equal(await page.locator(".picture").evaluate((it) => getComputedStyle(it).overflowX), "visible");
  await page.emulateMedia({ media: "screen" });
});

await check("without a connection, what is shown is marked as old", async () => {
  await page.route("**/api/**", (route) => route.abort());
  await page.getByRole("button", { name: "Refresh" }).click();
  await page.getByText("NOT up to date: pgrail does not answer").waitFor();
  await heading(`${PAGE_NAMESPACE}/shop`);
  await page.unroute("**/api/**");
  await page.getByRole("button", { name: "Refresh" }).click();
  await page.locator("#state", { hasText: "As of" }).waitFor();
});

await check("logged out: the token is forgotten", async () => {
  await page.getByRole("button", { name: "Log out" }).click();
  await heading("Log in");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
});

await check("pgrail blast-radius -o html is the same graph in one file", async () => {
  const file = await context.newPage();
  watch(file);
  await file.goto(pathToFileURL(PAGE_STANDALONE).href);
  await heading("Blast radius", file);
  assert.equal(await file.locator(".picture .node").count(), 3);
  for (const name of hostile) {
    await file.getByLabel("Table in focus").selectOption({ label: `public.${name}` });
    assert.equal(await file.locator(".about h3").textContent(), `public.${name}`);
  }
  await file.locator(".picture .node", { hasText: "public.accounts" }).click();
  await file.getByRole("heading", { name: "public.accounts", level: 3 }).waitFor();
  assert.equal(await file.locator("img").count(), 0);
  await accessible(file);
  await file.setViewportSize({ width: 360, height: 740 });
  await accessible(file);
  await file.close();
});

await context.close();
rmSync(profile, { recursive: true, force: true });
console.log(`${passed} checks passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
