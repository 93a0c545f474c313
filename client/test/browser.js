// Models in tabs of one Chromium, which shares nothing with any other. Answers each line on stdin with one on stdout.
//
// The pages come from http://localhost, so that the gateway is of another origin. A tab has a name, which it keeps when it is
// closed and opened again; `leader` names the one that holds the stream, `leader:bare` that of those whose names begin so.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const { executable, port, gateway, common, tabs: wanted } = JSON.parse(process.argv[2]);

const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
flags.push("--disable-background-networking", "--disable-component-update", "--disable-sync");

const types = { ".js": "text/javascript", ".map": "application/json" };
const document = '<!doctype html><title>tab</title><script type="module" src="/test/page.js"></script>';

const server = createServer(async ({ url }, answer) => {
  const path = new URL(url, "http://localhost").pathname;
  const file = /^\/(dist|test)\/[a-z]+\.js(\.map)?$/.test(path) && (await readFile(new URL(`..${path}`, import.meta.url)));
  const type = file ? types[extname(path)] : "text/html";
  answer.writeHead(200, {
    "content-type": type,
    "cache-control": "no-cache",
    "access-control-allow-origin": "*",
    // A page of no origin, which may have nothing in common with others.
    ...(path === "/sandboxed" && { "content-security-policy": "sandbox allow-scripts" }),
  });
  answer.end(file || document);
}).listen(port);

// Pages go into the back/forward cache, as they do for people.
const ignoreDefaultArgs = ["--disable-back-forward-cache"];
const browser = await chromium.launch({ executablePath: executable, args: flags, ignoreDefaultArgs });
const context = await browser.newContext();
const root = await browser.newBrowserCDPSession();

/** By name: the page unless it is closed, what it has asked of the gateway, and what its models have told before they went. */
const tabs = new Map();

async function open(name, own) {
  const tab = tabs.get(name) ?? { asked: [], past: { wrong: [], statuses: [], seen: {} } };
  tabs.set(name, tab);
  tab.options = own ?? tab.options;
  const page = await context.newPage();
  page.on("request", (request) => request.url().startsWith(gateway) && tab.asked.push(request.url()));
  page.on("crash", () => (tab.crashed = true));
  const settings = encodeURIComponent(JSON.stringify({ ...common, ...tab.options, name }));
  await page.goto(`http://localhost:${port}${tab.options.path ?? "/"}#${settings}`);
  await ready(page);
  tab.crashed = false;
  tab.page = page;
  return name;
}

const ready = (page) => page.waitForFunction("globalThis.page");

/** What the model of a tab tells, together with those that it had before. */
async function told({ past, page, asked }) {
  const now = await page.evaluate("page.told()");
  const seen = Object.fromEntries(Object.entries(now.seen).map(([what, count]) => [what, count + (past.seen[what] ?? 0)]));
  const statuses = [...past.statuses.splice(0), ...now.statuses];
  return { ...now, seen, statuses, wrong: [...past.wrong, ...now.wrong], asked: asked.length };
}

const opened = () => [...tabs.values()].filter(({ page }) => page);

async function leader(prefix = "") {
  for (const [name, { page }] of tabs) {
    // A page that is on its way leads nobody.
    if (name.startsWith(prefix) && (await page?.evaluate("page.leads()").catch(() => false))) return name;
  }
}

/** The name and the tab that is meant; there may be no leader for a moment. */
async function find(who) {
  const [role, prefix] = who.split(":");
  let name = who;
  while (role === "leader" && name === who) name = (await leader(prefix)) ?? (await sleep(10, who));
  return [name, tabs.get(name)];
}

/** A command for the tab that is meant, whose name is the answer. */
const to = (act) => async (who, ...words) => {
  const [name, tab] = await find(who);
  await act(tab, ...words);
  return name;
};

/** The same where its model goes. */
const ending = (act) =>
  to(async (tab, ...words) => {
    tab.past = await told(tab);
    await act(tab, ...words);
  });

async function close(tab) {
  await tab.page.close();
  tab.page = undefined;
}

/** The processes of the browser that do not run. */
let asleep = [];

/** How often a page has come back as it was. */
let kept = 0;

const commands = {
  open: (name, own) => open(name, own && JSON.parse(own)),
  look: () => Promise.all(opened().map(told)),
  leader: async () => (await find("leader"))[0],
  close: ending(close),
  crash: ending(async (tab) => {
    const session = await context.newCDPSession(tab.page);
    session.send("Page.crash").catch(() => {});
    while (!tab.crashed) await sleep(5);
    await close(tab);
    if (opened().some(({ crashed }) => crashed)) throw new Error("another tab has gone with it");
  }),
  reload: ending(async ({ page }) => {
    await page.reload();
    await ready(page);
  }),
  // It goes elsewhere, and comes back: to the page as it was, unless a message was on its way to it when it was put away.
  leave: to(async (tab, ms) => {
    const { page, past } = tab;
    const before = await told(tab);
    await page.evaluate("page.kept = true");
    await page.goto("about:blank");
    await sleep(+ms);
    await page.goBack({ waitUntil: "commit" });
    await ready(page);
    if (await page.evaluate("page.kept")) {
      kept += 1;
      past.statuses.push(...before.statuses);
      return;
    }
    tab.past = before;
    const [{ notRestoredReasons }] = await page.evaluate("performance.getEntriesByType('navigation')");
    const reasons = notRestoredReasons.reasons.map(({ reason }) => reason);
    if (reasons.some((reason) => reason !== "broadcastchannel-message")) throw new Error(`it was not kept: ${reasons}`);
  }),
  // How often a page was.
  kept: () => kept,
  // No timer of it runs, as in tabs that nobody has looked at for long; only what comes still reaches it.
  freeze: to(async ({ page }, ms) => {
    const session = await context.newCDPSession(page);
    await session.send("Page.setWebLifecycleState", { state: "frozen" });
    await sleep(+ms);
    await session.send("Page.setWebLifecycleState", { state: "active" });
  }),
  hang: to(({ page }, ms) => page.evaluate(`page.hang(${ms})`)),
  pause: to(({ page }, ms) => page.evaluate(`page.pause(${ms})`)),
  giveTokens: to(({ page }, kind) => page.evaluate(`page.giveTokens("${kind}")`)),
  refresh: to(({ page }) => page.evaluate("page.model.client.refresh()")),
  // Somebody looks at it.
  show: to(({ page }) => page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")),
  offline: async (ms) => {
    await context.setOffline(true);
    await sleep(+ms);
    await context.setOffline(false);
    return "online";
  },
  // What a page gets that asks something else of the gateway.
  fetch: async (who, path) => {
    const [, { page }] = await find(who);
    return page.evaluate(`fetch("${gateway}${path}").then(({ status }) => status)`);
  },
  // The machine sleeps, and the whole browser with it.
  stop: async () => {
    const { processInfo } = await root.send("SystemInfo.getProcessInfo");
    asleep = processInfo.map(({ id }) => id);
    for (const id of asleep) process.kill(id, "SIGSTOP");
    return "asleep";
  },
  continue: () => {
    for (const id of asleep) process.kill(id, "SIGCONT");
    return "awake";
  },
};

async function obey(line) {
  const [name, ...words] = line.split(" ");
  // Several at once are told by a list of lines.
  return name === "together" ? Promise.all(JSON.parse(words.join(" ")).map(obey)) : commands[name](...words);
}

await Promise.all(Object.entries(wanted).map(([name, own]) => open(name, own)));
for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(await obey(line)));
await browser.close();
server.close();
