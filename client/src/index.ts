import { Client } from "./client.js";
import type { EventMap, Options } from "./types.js";

export { Client, type Off } from "./client.js";
export { localCursors } from "./cursors.js";
export type { CursorStore, EventMap, EventOf, Item, Options, State, Status, TidingsEvent } from "./types.js";

/**
 * Connects to a gateway: first the state, then events as they are committed, each once and in order, for as long as it is wanted. Handlers that are added in
 * the same turn miss nothing.
 *
 * ```ts
 * const client = connect<{ "payment.settled": { payment: number } }>({ url, topics: ["user:42"], token });
 * client.onState(({ state }) => show(state));
 * client.on("payment.settled", ({ data }) => celebrate(data.payment));
 * ```
 */
export function connect<Events extends EventMap = EventMap, Shape = Record<string, unknown>>(options: Options): Client<Events, Shape> {
  return new Client<Events, Shape>(options);
}
