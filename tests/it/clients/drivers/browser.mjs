// Opens a page in Chromium, tells it to follow every route of the command line, and prints what it hears.
import { chromium } from "playwright-core";

const [executablePath, address, ...routes] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const page = await browser.newPage();
page.on("pageerror", (error) => console.log(`the page fails: ${error}`));
await page.exposeFunction("tell", (route, kind, data) => {
  // The data goes out as it came: if that is no JSON, neither is the line.
  console.log(`{"route":${JSON.stringify(route)},"kind":${JSON.stringify(kind)},"data":${data}}`);
});
await page.goto(address);
if (routes.length > 0) await page.evaluate((routes) => start(routes), routes);
process.stdin.resume().on("end", async () => {
  await browser.close();
  process.exit();
});
