// What a tab runs: a model, as the settings in its address say. The agent of browser.js calls what it leaves in the page.

import { connect } from "../dist/index.js";
import { Model, tokens } from "./model.js";

const { secret, sub, lasts = 3, given = "good", keeps, without = [], topics, ...options } = JSON.parse(decodeURIComponent(location.hash.slice(1)));

// As in browsers that lack it.
if (without.includes("locks")) delete Navigator.prototype.locks;
if (without.includes("BroadcastChannel")) delete globalThis.BroadcastChannel;

const kinds = { good: tokens(secret, sub, topics, lasts), bad: async () => "not.a.token" };
let token = kinds[given];

// A database of the page: what was counted is kept together with the cursor, and goes with it the few times that this fails.
let sets = 0;
let counted = {};
const cursors = {
  get: () => undefined,
  set: async () => {
    const failed = ++sets % 100 === 0 && sets < 400;
    if (failed) model.counts = { ...counted };
    else counted = { ...model.counts };
    if (failed) throw new Error("rolled back");
  },
};

const model = new Model(connect, { ...options, topics, token: (wish) => token(wish), ...(keeps === "badly" && { cursors }) });
let hold = () => {};
model.client.on("*", () => hold());

/** Whether this tab holds the lock of those who share a stream. */
async function leads() {
  const mine = `who ${crypto.randomUUID()}`;
  return navigator.locks?.request(mine, async () => {
    const { held } = await navigator.locks.query();
    const { clientId } = held.find(({ name }) => name === mine);
    return held.some((lock) => lock.clientId === clientId && lock.name.startsWith("tidings "));
  });
}

globalThis.page = {
  model,
  leads,
  told: () => model.told(),
  /** From now on the program gets tokens that the gateway refuses, or good ones again. */
  giveTokens: (kind) => void (token = kinds[kind]),
  /** The next event takes the program so many milliseconds; tells when it has begun. */
  pause: (ms) =>
    new Promise((begun) => {
      hold = () => {
        hold = () => {};
        begun();
        return new Promise((done) => setTimeout(done, ms));
      };
    }),
  /** Nothing else runs in this tab for so many milliseconds. */
  hang: (ms) => {
    const end = performance.now() + ms;
    while (performance.now() < end);
  },
};
