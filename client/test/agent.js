// Models in a Node process, one for each way to use the client. Answers each line on stdin with one on stdout.

import { createInterface } from "node:readline";
import { connect } from "../dist/index.js";
import { keptCursor, Model, tokens } from "./model.js";

const { url, secret, topics } = JSON.parse(process.argv[2]);

/** `fetch` as in React Native: the body of an answer comes at its end. */
async function unstreamed(...request) {
  const answer = await fetch(...request);
  const { status, ok, headers } = answer;
  const text = await answer.text();
  return { status, ok, headers, body: undefined, json: async () => JSON.parse(text) };
}

const common = (sub) => ({ url, topics, beat: 1_000, token: tokens(secret, sub, topics, 3) });
const models = [
  { ...common("handlers"), name: "handlers" },
  { ...common("slow"), name: "slow", feed: "slow", limit: 7 },
  { ...common("iterator"), name: "iterator", feed: "iterator" },
  { ...common("polls"), name: "polls", poll: 200, fetch: unstreamed },
  { ...common("restarts"), name: "restarts", cursors: keptCursor() },
].map((options) => new Model(connect, options));

const commands = {
  look: () => models.map((model) => model.told()),
  restart: async () => {
    await models.at(-1).restart();
    return "restarted";
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await commands[line]()));
}
await Promise.all(models.map((model) => model.client.close()));
