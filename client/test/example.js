// Runs an example as it stands in a page, with the functions that it calls. Prints each call.

import { connect } from "../dist/index.js";

const { example, token } = JSON.parse(process.argv[2]);
const called = (name) => (...values) => console.log(JSON.stringify({ name, values }));
const given = {
  connect,
  show: called("show"),
  celebrate: called("celebrate"),
  badge: called("badge"),
  // Where the program's own server gives out tokens.
  fetch: async (path) => ({ text: async () => (path === "/token?fresh=false" ? token : "") }),
};
const run = new Function(...Object.keys(given), `${example}\nreturn client;`);
const client = run(...Object.values(given));
process.stdin.on("end", () => client.close()).resume();
