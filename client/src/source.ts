import { Attempt, End } from "./attempt.js";
import type { Delivery, Say } from "./delivery.js";
import type { Door } from "./door.js";
import { blocks } from "./sse.js";
import type { EventMap, EventOf, Options, Status } from "./types.js";

/** The longest that is waited beyond what the gateway has asked for, in milliseconds. */
const LONGEST = 30_000;

/** The longest time that a timer takes, in milliseconds. */
export const TIMER = 2 ** 31 - 1;

/** Where `fetch` cannot stream it would wait for the end of the stream. */
const canStream = () => typeof ReadableStream === "function" && "body" in Response.prototype;

/** How long a live stream may be silent, in milliseconds. */
export const patience = ({ beat = 20_000 }: Options): number => 2.5 * beat;

/**
 * Brings state and events from the gateway, and comes back however often it takes.
 *
 * It goes on from the cursor of a delivery. Each word that it says has been dealt with before the next.
 */
export class Source {
  readonly #options: Options;
  readonly #door: Door;
  readonly #delivery: Delivery<EventMap, unknown>;
  readonly #say: Say;
  #attempt: Attempt;
  #over = false;
  /** Whether the gateway itself has asked for the present wait. */
  #asked = false;
  #woken = false;
  #resume = () => {};
  #retry = 1_000 + 1_000 * Math.random();
  #failures = 0;
  /** When a token was last renewed before its time. */
  #renewed = 0;

  constructor(options: Options, door: Door, delivery: Delivery<EventMap, unknown>, say: Say) {
    this.#options = options;
    this.#door = door;
    this.#delivery = delivery;
    this.#say = say;
    this.#attempt = new Attempt(patience(options));
  }

  /** Goes on until {@link stop}. */
  async run(): Promise<void> {
    while (!this.#over) {
      const attempt = (this.#attempt = new Attempt(patience(this.#options)));
      this.#woken = false;
      const end = await this.#try(attempt).catch((error) => attempt.why ?? (error instanceof End ? error : new End("network")));
      // Whatever is still open is closed.
      attempt.end(end);
      if (this.#over) return;
      // With a new token, or with the next poll, it goes on as it was.
      const goesOn = /^(renewal|poll)$/.test(end.message);
      this.#asked = !goesOn && end.wait !== Infinity && (!!end.wait || end.message === "overload");
      // At least what the gateway has asked for, and with full jitter ever longer.
      const wait = end.wait ?? this.#retry + Math.random() * Math.min(LONGEST, this.#retry * (2 ** this.#failures++ - 1));
      if (!goesOn) await this.#tell(wait === Infinity ? "denied" : this.#delivery.hasLived ? "stale" : "connecting", end.message);
      await this.#pause(wait);
    }
  }

  /** Ends it: nothing more is said. */
  stop(): void {
    this.#over = true;
    this.wake("closed");
  }

  /** Tries again at once, whatever it does or waits for. */
  wake(reason: string): void {
    this.#woken = true;
    this.#attempt.end(new End(reason, 0));
    this.#resume();
  }

  /** The same if it has heard nothing for too long, or waits without having been asked to. */
  check(): void {
    const { overdue, why } = this.#attempt;
    if (why ? !this.#asked : overdue) this.wake("silence");
  }

  async #try(attempt: Attempt): Promise<End> {
    const { poll, fetch } = this.#options;
    if (!poll && (fetch || canStream())) {
      if (!this.#delivery.synced) await this.#sync(attempt);
      return this.#stream(attempt);
    }
    await this.#tell("live", "poll", await this.#sync(attempt));
    return new End("poll", poll ?? 5_000);
  }

  /** What was missed, and the state unless it is known; returns which topics are denied. */
  async #sync(attempt: Attempt): Promise<string[]> {
    const delivery = this.#delivery;
    let denied: string[] = [];
    const state = !delivery.synced && this.#options.state !== false;
    for await (const page of this.#door.pages(delivery.cursor, state, attempt)) {
      const { cursor, reset, more } = page;
      denied = page.denied;
      for (const event of page.events) await this.#say({ kind: "event", event });
      if (reset && delivery.synced && this.#options.state !== false) {
        // The cursor is asked about once more, together with the state.
        delivery.synced = false;
        return this.#sync(attempt);
      }
      if (!more && (state || reset)) {
        await this.#say({ kind: "state", state: { type: "tidings.state", state: page.state, reset }, cursor });
      } else {
        await this.#say({ kind: "cursor", cursor, ready: !more, page: !more });
      }
      attempt.check();
    }
    delivery.synced = true;
    return denied;
  }

  async #stream(attempt: Attempt): Promise<End> {
    let renewal: ReturnType<typeof setTimeout> | undefined;
    const { body } = await this.#door.get("events", { since: this.#delivery.cursor }, attempt);
    try {
      const guard = attempt.guard.bind(attempt);
      for await (const { event, data, id } of blocks(body as ReadableStream<Uint8Array>, guard, (wait) => (this.#retry = wait))) {
        const said = JSON.parse(data);
        if (event === "tidings.reset") {
          this.#delivery.synced = false;
          return new End(said.reason, said.wait_ms);
        }
        if (event === "tidings.bye") {
          this.#door.stale = /expired|revoked/.test(said.reason);
          return new End(said.reason);
        }
        const ready = event === "tidings.ready";
        if (ready) {
          renewal = this.#renewAt(said.expires_at);
          await this.#tell("live", "stream", said.denied);
        }
        await this.#say(event ? { kind: "cursor", cursor: id, ready } : { kind: "event", event: said as EventOf<EventMap>, cursor: id });
        attempt.check();
      }
      return new End("network");
    } finally {
      clearTimeout(renewal);
    }
  }

  /** Comes back with a new token before this one has expired. Where a clock is wrong, that is left to the gateway's good-bye. */
  #renewAt(expires: string | null): ReturnType<typeof setTimeout> | undefined {
    const left = Date.parse(expires ?? "") - Date.now();
    if (!this.#options.token || !(left > 1_000) || Date.now() < this.#renewed + 10_000) return;
    return setTimeout(() => {
      this.#renewed = Date.now();
      this.#door.stale = true;
      this.wake("renewal");
    }, Math.min(left - Math.min(left / 5, 30_000), TIMER));
  }

  async #tell(is: Status["is"], reason: string, denied = this.#delivery.status.denied): Promise<void> {
    if (is === "live") this.#failures = 0;
    const offline = is !== "live" && is !== "denied" && globalThis.navigator?.onLine === false;
    await this.#say({ kind: "status", status: { is: offline ? "offline" : is, reason, denied } });
  }

  #pause(wait: number): Promise<void> {
    if (this.#woken) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = wait < Infinity ? setTimeout(resolve, wait) : undefined;
      this.#resume = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
