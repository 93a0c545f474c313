import { Attempt, End } from "./attempt.js";
import { Delivery, STATE, STATUS } from "./delivery.js";
import { Door } from "./door.js";
import { Source } from "./source.js";
import type { EventMap, EventOf, Item, Options, State, Status, TidingsEvent } from "./types.js";

/** What brings words to a delivery. */
interface Runner {
  run(): Promise<void>;
  stop(): void;
  wake(reason: string): void;
  check(): void;
}

/** Takes back what it was returned for. */
export type Off = () => void;

/** A connection to a gateway, for as long as it is wanted; {@link connect} makes one. */
export class Client<Events extends EventMap = EventMap, Shape = Record<string, unknown>> {
  readonly #options: Options;
  readonly #door: Door;
  readonly #delivery: Delivery<Events, Shape>;
  readonly #closed = new AbortController();
  #attempt: Attempt | undefined;
  #resume = () => {};
  #runner: Runner | undefined;
  #hidden = false;
  #running: Promise<void>;

  constructor(options: Options) {
    this.#options = options;
    this.#door = new Door(options);
    const synced = options.state === false || !!options.since;
    this.#delivery = new Delivery(synced, options.since, options.cursors, this.#closed.signal);
    // Whoever asks for items in the same turn misses none.
    this.#running = Promise.resolve().then(() => this.#begin());
  }

  /** How it stands. */
  get status(): Status {
    return this.#delivery.status;
  }

  /** The cursor of the last item that has been dealt with. */
  get cursor(): string | undefined {
    return this.#delivery.cursor;
  }

  /**
   * Calls `handler` for each event of a type, or of all (`*`). A handler that returns a promise holds up what follows until that is
   * settled; only then the cursor moves on.
   */
  on<Type extends keyof Events & string>(type: Type, handler: (event: TidingsEvent<Type, Events[Type]>) => unknown): Off;
  on(type: "*", handler: (event: EventOf<Events>) => unknown): Off;
  on(type: string, handler: (event: never) => unknown): Off {
    return this.#delivery.add(type, handler as (item: unknown) => unknown);
  }

  /** Calls `handler` with each state, which replaces what was known: at first, and when events may be missing. */
  onState(handler: (state: State<Shape>) => unknown): Off {
    return this.#delivery.add(STATE, handler as (item: unknown) => unknown);
  }

  /** Calls `handler` whenever {@link status} has changed. */
  onStatus(handler: (status: Status) => unknown): Off {
    return this.#delivery.add(STATUS, handler as (item: unknown) => unknown);
  }

  /** States and events in order. The next comes when the last has been dealt with, and so does whatever handlers wait for. */
  [Symbol.asyncIterator](): AsyncGenerator<Item<Events, Shape>> {
    return this.#delivery.items();
  }

  /** Tries again at once: after a login, or when a phone's program comes to the front. */
  refresh(): void {
    this.#wake("refresh");
  }

  /** Ends it; resolves when the last handler is done, so that a handler must not wait for it. */
  close(): Promise<void> {
    this.#closed.abort();
    this.#runner?.stop();
    this.#wake("closed");
    return this.#running;
  }

  #wake(reason: string): void {
    this.#attempt?.end(new End(reason));
    this.#resume();
    this.#runner?.wake(reason);
  }

  async #begin(): Promise<void> {
    const listen = (target: EventTarget | undefined, type: string, act: (event: Event) => void) =>
      target?.addEventListener?.(type, act, { signal: this.#closed.signal });
    const page = globalThis.document;
    const scope = globalThis as unknown as EventTarget;
    listen(scope, "online", () => this.#wake("online"));
    listen(scope, "offline", () => this.#wake("offline"));
    listen(page, "visibilitychange", () => page.visibilityState === "visible" && this.#runner?.check());
    // A page that goes into the back/forward cache may hold nothing, and must not lead.
    listen(scope, "pagehide", () => {
      this.#hidden = true;
      this.#runner?.stop();
    });
    listen(scope, "pageshow", (event) => {
      this.#hidden = false;
      if ((event as PageTransitionEvent).persisted) this.#running = this.#running.then(() => this.#run());
    });
    this.#delivery.cursor ??= (await this.#need("cursors", async () => this.#options.cursors?.get())) ?? undefined;
    await this.#run();
  }

  async #run(): Promise<void> {
    const name = await this.#name();
    const [options, door] = [this.#options, this.#door];
    const delivery = this.#delivery as Delivery<EventMap, unknown>;
    // Only pages need it.
    const tabs = name && (await import("./tabs.js").catch(() => undefined));
    if (this.#closed.signal.aborted || this.#hidden) return;
    if (delivery.hasLived) await this.#tell("shown");
    this.#runner = tabs ? new tabs.Tabs(options, door, delivery, name) : new Source(options, door, delivery, (word) => delivery.take(word));
    await this.#runner.run();
  }

  /** What tabs of the same user that want the same have in common; `undefined` where each has a stream of its own. */
  async #name(): Promise<string | undefined> {
    const { url, topics = [], share, state = true } = this.#options;
    if (share === false || !globalThis.location || !globalThis.BroadcastChannel) return;
    // A page in a sandbox, or of one who keeps nothing, has locks and may not use them.
    if (!(await navigator.locks?.query().catch(() => undefined))) return;
    const user = share ?? (await this.#need("token", () => this.#user()));
    return user && ["tidings", new URL(url, location.href), state, ...[...topics].sort(), user].join(" ");
  }

  /** Whose the token is: all its claims but those of time. */
  async #user(): Promise<string | undefined> {
    const token = await this.#options.token?.({ fresh: false });
    try {
      const claims = atob(token!.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/"));
      return JSON.stringify({ ...JSON.parse(claims), exp: 0, iat: 0, nbf: 0, jti: 0 });
    } catch {
      // No token, or none that says whose it is.
      return;
    }
  }

  /** What must be had before the gateway is asked, however often it takes: a page may start without a network. */
  async #need<T>(what: string, ask: () => Promise<T>): Promise<T | undefined> {
    for (let wait = 1_000; !this.#closed.signal.aborted; wait = Math.min(2 * wait, 30_000)) {
      try {
        return await (this.#attempt = new Attempt(30_000)).guard(ask());
      } catch {
        if (this.#closed.signal.aborted) break;
        await this.#tell(what);
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, wait * Math.random());
          this.#resume = () => resolve(clearTimeout(timer));
        });
      }
    }
    return;
  }

  #tell(reason: string): Promise<void> {
    const { hasLived, status } = this.#delivery;
    return this.#delivery.take({ kind: "status", status: { is: hasLived ? "stale" : "connecting", reason, denied: status.denied } });
  }
}
