// What a program is given, when, and what the cursor says meanwhile.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Delivery } from "../dist/delivery.js";

const said = (n, cursor = `c${n}`) => ({ kind: "event", event: { id: `${n}`, topic: "t", type: "said", at: "", data: n }, cursor });

function delivery() {
  const kept = [];
  const over = new AbortController();
  const store = { get: () => undefined, set: async (cursor) => void kept.push(cursor) };
  return { kept, over, made: new Delivery(true, "c0", store, over.signal) };
}

test("the cursor moves when all handlers are done, and not before", async () => {
  const { made, kept } = delivery();
  const order = [];
  let go;
  made.add("said", ({ data }) => new Promise((resolve) => (go = () => resolve(order.push(`slow ${data}`)))));
  made.add("*", ({ data }) => order.push(`quick ${data}`));
  made.add("other", () => order.push("not asked for"));
  const taken = made.take(said(1));
  assert.deepEqual([order, made.cursor, kept], [["quick 1"], "c0", []]);
  go();
  await taken;
  assert.deepEqual([order, made.cursor, kept], [["quick 1", "slow 1"], "c1", ["c1"]]);
});

test("a handler that fails has had its event, and the failure is seen", async () => {
  const { made, kept } = delivery();
  const failures = [];
  const listeners = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", (error) => failures.push(error.message));
  made.add("said", () => {
    throw new Error("at once");
  });
  made.add("said", async () => {
    throw new Error("later");
  });
  await made.take(said(1));
  await made.take(said(2));
  await new Promise(setImmediate);
  process.removeAllListeners("uncaughtException");
  for (const listener of listeners) process.on("uncaughtException", listener);
  assert.deepEqual(kept, ["c1", "c2"]);
  assert.deepEqual(failures.sort(), ["at once", "at once", "later", "later"]);
});

test("handlers that are taken back within an event change nothing for the others", async () => {
  const { made } = delivery();
  const heard = [];
  const remove = made.add("said", () => remove(heard.push("once")));
  made.add("said", () => heard.push("always"));
  await made.take(said(1));
  await made.take(said(2));
  assert.deepEqual(heard, ["once", "always", "always"]);
});

test("who iterates is given the next when it is done with the last", async () => {
  const { made, kept } = delivery();
  const items = made.items();
  const first = items.next();
  const taken = [made.take(said(1))];
  assert.equal((await first).value.data, 1);
  await new Promise(setImmediate);
  assert.deepEqual(kept, []);
  const second = items.next();
  await taken[0];
  taken.push(made.take(said(2)));
  assert.equal((await second).value.data, 2);
  await items.return();
  await taken[1];
  assert.deepEqual(kept, ["c1", "c2"]);
  // Nobody iterates any more, and nobody is waited for.
  await made.take(said(3));
  assert.equal(made.cursor, "c3");
});

test("what nobody has taken from an iterator when all ends is not counted as seen", async () => {
  const { made, kept, over } = delivery();
  const items = made.items();
  const first = items.next();
  const one = made.take(said(1));
  await first;
  const waiting = items.next();
  await one;
  over.abort();
  assert.equal((await waiting).done, true);
  await made.take(said(2));
  const other = delivery();
  const late = other.made.items();
  const begun = late.next();
  const taken = other.made.take(said(1));
  other.over.abort();
  assert.equal((await begun).done, true);
  await taken;
  assert.deepEqual([kept, other.kept, other.made.cursor], [["c1"], [], "c0"]);
});

test("an event whose cursor is not known comes once all the same", async () => {
  const { made } = delivery();
  const heard = [];
  made.add("*", ({ data }) => heard.push(data));
  await made.take(said(1, ""));
  // The connection was lost, and the cursor brings it again, now with a position.
  await made.take(said(1));
  await made.take(said(2));
  assert.deepEqual([heard, made.cursor], [[1, 2], "c2"]);
});

test("after the end nobody is given anything, and no cursor moves", async () => {
  const { made, kept, over } = delivery();
  const heard = [];
  made.add("*", ({ data }) => {
    heard.push(data);
    if (data === 2) over.abort();
  });
  for (const n of [1, 2, 3]) await made.take(said(n));
  assert.deepEqual([heard, kept], [[1, 2], ["c1", "c2"]]);
});

test("what cannot be kept comes again", async () => {
  const heard = [];
  const kept = [];
  const store = {
    get: () => undefined,
    set: async (cursor) => {
      if (heard.length === 3) throw new Error("rolled back");
      kept.push(cursor);
    },
  };
  const made = new Delivery(true, "c0", store, new AbortController().signal);
  made.add("*", ({ data }) => heard.push(data));
  await made.take(said(1));
  // A page of sync: only its end has a cursor.
  await made.take(said(2, ""));
  await made.take(said(3, ""));
  await assert.rejects(made.take({ kind: "cursor", cursor: "c3", ready: true }), { message: "cursors" });
  assert.equal(made.cursor, "c1");
  for (const n of [2, 3]) await made.take(said(n, ""));
  await made.take({ kind: "cursor", cursor: "c3", ready: true });
  assert.deepEqual([heard, kept, made.cursor], [[1, 2, 3, 2, 3], ["c1", "c3"], "c3"]);
});

test("what was handed over ahead of the cursor is not handed over again, however far behind a stream begins", async () => {
  const { made } = delivery();
  const heard = [];
  made.add("said", ({ data }) => heard.push(data));
  await made.take(said(2, ""));
  await made.take({ kind: "cursor", cursor: "c1", ready: true });
  await made.take(said(2));
  assert.deepEqual([heard, made.cursor, made.ahead.size], [[2], "c2", 0]);
  // A page has seen whatever was told before it.
  await made.take(said(3, ""));
  await made.take({ kind: "cursor", cursor: "c3", ready: false, page: true });
  assert.equal(made.ahead.size, 0);
});
