// React components in a page of Chromium. Answers each line on stdin with one on stdout.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { useTidings } from "../dist/react.js";

const { executable, port, ...settings } = JSON.parse(process.argv[2]);

const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
flags.push("--disable-background-networking", "--disable-component-update", "--disable-sync");

const { outputFiles } = await build({
  entryPoints: [new URL("react-page.jsx", import.meta.url).pathname],
  bundle: true,
  define: { "process.env.NODE_ENV": '"development"' },
  // The lazy part goes along with the rest.
  format: "esm",
  jsx: "automatic",
  write: false,
});
const [{ contents }] = outputFiles;
const server = createServer(({ url }, answer) => {
  const script = url === "/page.js";
  answer.writeHead(200, { "content-type": script ? "text/javascript" : "text/html" });
  answer.end(script ? contents : '<!doctype html><body></body><script type="module" src="/page.js"></script>');
}).listen(port);

const browser = await chromium.launch({ executablePath: executable, args: flags });
const page = await browser.newPage();
const failures = [];
page.on("pageerror", (error) => failures.push(`${error}`));
page.on("console", (message) => message.type() === "error" && failures.push(message.text()));
await page.goto(`http://localhost:${port}/#${encodeURIComponent(JSON.stringify(settings))}`);
await page.waitForFunction("globalThis.setViews");

const commands = {
  // Views by id, each with its topics.
  show: (views) => page.evaluate(`setViews(${views})`).then(() => "shown"),
  look: async () => {
    if (failures.length) throw new Error(failures.join("\n"));
    const shown = await page.$$eval("output", (outputs) => outputs.map(({ id, textContent }) => [id, JSON.parse(textContent)]));
    return Object.fromEntries(shown);
  },
  // On a server there is nothing yet, and nothing is opened.
  render: () => {
    const View = () => createElement("p", null, JSON.stringify(useTidings({ ...settings })));
    return renderToString(createElement(View));
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...words] = line.split(" ");
  console.log(JSON.stringify(await commands[name](words.join(" "))));
}
await browser.close();
server.close();
