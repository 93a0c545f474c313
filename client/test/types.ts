// What a program that is well typed may write, and what it may not: this file is compiled and never run.

import { connect, localCursors, type CursorStore, type TidingsEvent } from "@tidings/client";
import { useEvent, useTidings } from "@tidings/client/react";

type Events = {
  "payment.settled": { payment: number };
  "request.answered": { by: string };
};
type Shape = { "user:42": { balance: number } };

const client = connect<Events, Shape>({
  url: "https://events.example.org",
  topics: ["user:42"],
  token: async ({ fresh }) => (fresh ? "new" : "kept"),
  cursors: localCursors("user 42"),
});

client.on("payment.settled", ({ data }) => data.payment.toFixed(2));
client.on("*", (event) => (event.type === "request.answered" ? event.data.by.length : event.data.payment));
client.onState(({ state, reset }) => (state ? state["user:42"].balance : reset));
client.onStatus(({ is, reason, denied }) => `${is} ${reason} ${denied.length}`);
client.refresh();
await client.close();

for await (const item of client) {
  if (item.type === "tidings.state") item.state?.["user:42"].balance;
  else if (item.type === "payment.settled") item.data.payment;
}

// @ts-expect-error: there is no such type.
client.on("payment.lost", () => {});
// @ts-expect-error: a payment is a number.
client.on("payment.settled", ({ data }) => data.payment.length);
// @ts-expect-error: a URL is needed.
connect({});

// Without a map, anything may come.
connect({ url: "/", token: () => undefined, state: false }).on("any", (event: TidingsEvent) => event.data);
const own: CursorStore = { get: () => null, set: (cursor) => void cursor.length };
connect({ url: new URL("https://events.example.org"), cursors: own, share: "user 42", poll: 1_000 });

export function Balance() {
  const { state, status, store } = useTidings<Events, { balance: number }>({
    url: "https://events.example.org",
    reduce: (state, event) => (event.type === "payment.settled" ? { balance: state.balance - event.data.payment } : state),
  });
  useEvent(store, "request.answered", ({ data }) => data.by.length);
  // @ts-expect-error: there is no such type.
  useEvent(store, "request.lost", () => {});
  return state && status.is === "live" ? state.balance.toFixed(2) : status.reason;
}
