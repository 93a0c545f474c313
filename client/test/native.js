// A model in a process that lacks what React Native lacks: answers that stream, reasons of an AbortSignal, and a
// URLSearchParams that can be written.

import { createInterface } from "node:readline";

const { fetch, AbortController } = globalThis;
globalThis.fetch = async (url, { signal, ...rest }) => {
  const own = new AbortController();
  signal.addEventListener("abort", () => own.abort());
  const answer = await fetch(url, { ...rest, signal: own.signal });
  const { status, ok, headers } = answer;
  const text = await answer.text();
  return { status, ok, headers, json: async () => JSON.parse(text) };
};
globalThis.Response = class Response {};
globalThis.URLSearchParams = undefined;
globalThis.AbortController = class {
  #real = new AbortController();
  get signal() {
    const { signal } = this.#real;
    return {
      get aborted() {
        return signal.aborted;
      },
      addEventListener: signal.addEventListener.bind(signal),
      removeEventListener: signal.removeEventListener.bind(signal),
    };
  }
  abort() {
    this.#real.abort();
  }
};

const { connect } = await import("../dist/index.js");
const { Model, tokens } = await import("./model.js");

const { url, secret, topics } = JSON.parse(process.argv[2]);
const model = new Model(connect, { name: "native", url, topics, beat: 1_000, token: tokens(secret, "native", topics, 3) });
for await (const _ of createInterface({ input: process.stdin })) console.log(JSON.stringify([model.told()]));
await model.client.close();
