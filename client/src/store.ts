import { connect } from "./index.js";
import type { Client, Off } from "./client.js";
import type { EventMap, EventOf, Options, Status, TidingsEvent } from "./types.js";

/** What a view shows. */
export interface Snapshot<Shape> {
  /** `undefined` until it is known. */
  readonly state: Shape | undefined;
  readonly status: Status;
}

/** What a store is made from. */
export interface StoreOptions<Events extends EventMap, Shape> extends Options {
  /** What an event makes of the state; unless given, events leave it as it is. Returns a new value and changes no old one. */
  reduce?: (state: Shape, event: EventOf<Events>) => Shape;
  /** The state until it is told: of a page that was rendered with `since`, or where there are no state functions. */
  initial?: Shape;
}

/** The state as events go on with it, for as long as somebody looks at it. */
export class Store<Events extends EventMap = EventMap, Shape = Record<string, unknown>> {
  #snapshot: Snapshot<Shape>;
  #client: Client<Events, Shape> | undefined;
  readonly #options: StoreOptions<Events, Shape>;
  readonly #used: (used: boolean) => void;
  readonly #lookers = new Set<() => void>();
  readonly #handlers = new Set<(event: EventOf<Events>) => unknown>();

  /** `used` is told when somebody begins to look at it, and when nobody has for a moment: then it has closed. */
  constructor(options: StoreOptions<Events, Shape>, used: (used: boolean) => void) {
    this.#options = options;
    this.#used = used;
    this.#snapshot = { state: options.initial, status: { is: "connecting", reason: "", denied: [] } };
  }

  /** What is now; the same object until something has changed. */
  readonly snapshot = (): Snapshot<Shape> => this.#snapshot;

  /** Calls `look` after each change. The first who looks opens the connection, and a moment after the last it is closed. */
  readonly subscribe = (look: () => void): Off => {
    this.#lookers.add(look);
    this.#client ??= this.#open();
    return () => {
      this.#lookers.delete(look);
      // A view that is replaced by the next one closes nothing.
      setTimeout(() => {
        if (this.#lookers.size || !this.#client) return;
        void this.#client.close();
        this.#client = undefined;
        this.#used(false);
      });
    };
  };

  /** Calls `handler` for each event of a type, or of all (`*`). */
  on<Type extends keyof Events & string>(type: Type | "*", handler: (event: TidingsEvent<Type, Events[Type]>) => unknown): Off {
    const chosen = (event: EventOf<Events>) => {
      if (type === "*" || event.type === type) return handler(event as TidingsEvent<Type, Events[Type]>);
    };
    this.#handlers.add(chosen);
    return () => this.#handlers.delete(chosen);
  }

  /** Tries again at once. */
  refresh(): void {
    this.#client?.refresh();
  }

  #open(): Client<Events, Shape> {
    const client = connect<Events, Shape>(this.#options);
    this.#used(true);
    // Opened again, it is not what it was.
    if (this.#snapshot.status.is !== client.status.is) this.#change({ status: client.status });
    client.onStatus((status) => this.#change({ status }));
    client.onState(({ state }) => this.#change({ state }));
    client.on("*", async (event) => {
      const { state } = this.#snapshot;
      if (state !== undefined && this.#options.reduce) this.#change({ state: this.#options.reduce(state, event) });
      await Promise.all([...this.#handlers].map(async (handler) => handler(event)));
    });
    return client;
  }

  #change(what: Partial<Snapshot<Shape>>): void {
    this.#snapshot = { ...this.#snapshot, ...what };
    for (const look of this.#lookers) look();
  }
}
