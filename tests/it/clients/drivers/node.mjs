// Runs the snippet beside it on every route of the command line, and prints what it hears.
import { follow } from "./snippet.mjs";

const routes = process.argv.slice(2);
while (routes.length > 0) {
  const [route, url, token] = routes.splice(0, 3);
  follow(url, token, (kind, data) => {
    // The data goes out as it came: if that is no JSON, neither is the line.
    console.log(`{"route":${JSON.stringify(route)},"kind":${JSON.stringify(kind)},"data":${data}}`);
  });
}
process.stdin.resume().on("end", () => process.exit());
