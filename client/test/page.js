// What a tab runs: a model, as the settings in its address say. The agent of browser.js calls what it leaves in the page.

import { connect } from "../dist/index.js";
import { Model, tokens } from "./model.js";

const { secret, sub, lasts = 3, given = "good", without = [], topics, ...options } = JSON.parse(decodeURIComponent(location.hash.slice(1)));

// As in browsers that lack it.
if (without.includes("locks")) delete Navigator.prototype.locks;
if (without.includes("BroadcastChannel")) delete globalThis.BroadcastChannel;

const kinds = { good: tokens(secret, sub, topics, lasts), bad: async () => "not.a.token" };
let token = kinds[given];

const model = new Model(connect, { ...options, topics, token: (wish) => token(wish) });

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
  /** Nothing else runs in this tab for so many milliseconds. */
  hang: (ms) => {
    const end = performance.now() + ms;
    while (performance.now() < end);
  },
};
