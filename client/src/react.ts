import { useEffect, useMemo, useRef, useSyncExternalStore } from "react";
import { type Snapshot, Store, type StoreOptions } from "./store.js";
import type { EventMap, TidingsEvent } from "./types.js";

export type { Snapshot, Store, StoreOptions } from "./store.js";

/** Components that want the same share one store, and one connection. */
const stores = new Map<string, Store<never, never>>();

function shared<Events extends EventMap, Shape>(key: string, options: StoreOptions<Events, Shape>): Store<Events, Shape> {
  const known = stores.get(key) as unknown as Store<Events, Shape> | undefined;
  if (known) return known;
  const store = new Store<Events, Shape>(options, (used) => {
    if (used) stores.set(key, own);
    else if (stores.get(key) === own) stores.delete(key);
  });
  const own = store as unknown as Store<never, never>;
  // A server renders for everybody, and keeps nothing.
  if (globalThis.document) stores.set(key, own);
  return store;
}

/**
 * The state of these topics, live, and how it stands with the connection. The connection lasts while a component uses it; components with
 * the same `url`, `topics` and `share` use one, with the functions that the first has given.
 *
 * ```tsx
 * const { state, status, store } = useTidings({ url, topics: ["request:7"], token, reduce });
 * ```
 */
export function useTidings<Events extends EventMap = EventMap, Shape = Record<string, unknown>>(
  options: StoreOptions<Events, Shape>,
): Snapshot<Shape> & { store: Store<Events, Shape> } {
  const key = JSON.stringify([options.url, options.topics, options.share]);
  // eslint-disable-next-line react-hooks/exhaustive-deps -- the key says when they differ
  const store = useMemo(() => shared(key, options), [key]);
  const snapshot = useSyncExternalStore(store.subscribe, store.snapshot, store.snapshot);
  return { ...snapshot, store };
}

/** Calls `handler`, always the one of the last render, for each event of a type, or of all (`*`). */
export function useEvent<Events extends EventMap, Type extends keyof Events & string>(
  store: Store<Events, never> | Store<Events>,
  type: Type | "*",
  handler: (event: TidingsEvent<Type, Events[Type]>) => unknown,
): void {
  const last = useRef(handler);
  useEffect(() => {
    last.current = handler;
  });
  useEffect(() => store.on(type, (event) => last.current(event)), [store, type]);
}
