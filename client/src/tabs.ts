import { Attempt, End } from "./attempt.js";
import type { Delivery, Word } from "./delivery.js";
import type { Door } from "./door.js";
import { patience, Source, TIMER } from "./source.js";
import type { EventMap, Options } from "./types.js";

/** What tabs tell each other. Whose term is higher leads, so that one who has lost the lead and does not know it is not heard. */
type Message = { term: number } & (
  /** A tab wants to follow, or to hear that somebody leads. */
  | { kind: "join" }
  /** The same, and somebody looks at it. */
  | { kind: "check" }
  /** A program wants a new attempt. */
  | { kind: "wake" }
  /** This tab leads from now on, and its words go on from this cursor. */
  | { kind: "lead"; cursor: string | undefined }
  /** The words that follow go on from this cursor, which has seen whatever an earlier leader has told. */
  | { kind: "at"; cursor: string }
  | Word
);

/**
 * One stream for all tabs that share a name. Whoever holds the lock of that name leads: it has the stream, and posts all its words to
 * the others, whose cursors move as its own does.
 *
 * A tab follows a leader only from a cursor that both hold. Else it catches up by itself, from its own cursor to a snapshot that is later than
 * the leader's position; what the leader brings that is in that snapshot already is `due` and is left out. Until all of that has come, the
 * leader's cursor may lie before the snapshot and is not taken over.
 */
export class Tabs {
  readonly #options: Options;
  readonly #door: Door;
  readonly #delivery: Delivery<EventMap, unknown>;
  readonly #name: string;
  readonly #channel: BroadcastChannel;
  #source: Source | undefined;
  #attempt: Attempt | undefined;
  #waiting = new AbortController();
  #over = false;
  #leading = false;
  /** How often in a row nothing had come when it was looked after. */
  #silent = 0;
  /** The term of the leader whose words count; its own when it leads. */
  #term = 0;
  #following = false;
  /** Runs while it waits to join again. */
  #later: ReturnType<typeof setTimeout> | 0 = 0;
  #wait = 1_000;
  #status: (Word & { kind: "status" }) | undefined;
  readonly #due = new Set<string>();
  /** As a leader: since when its program deals with a word. */
  #busy = 0;
  /** As a leader: the cursor of the last word, if all before it has been told. */
  #told: string | undefined;
  /** Messages are dealt with one after the other. */
  #chain = Promise.resolve();

  constructor(options: Options, door: Door, delivery: Delivery<EventMap, unknown>, name: string) {
    this.#options = options;
    this.#door = door;
    this.#delivery = delivery;
    this.#name = name;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }: MessageEvent<Message>) => {
      const { kind, term } = data;
      if (this.#leading) this.#answer(data);
      if (this.#leading || kind === "join" || kind === "check" || kind === "wake" || term < this.#term) return;
      this.#silent = 0;
      this.#chain = this.#chain.then(() => this.#hear(data)).catch(() => this.#joinLater());
    };
  }

  /** Goes on until {@link stop}. */
  async run(): Promise<void> {
    const watch = setInterval(() => this.#watch(), patience(this.#options));
    while (!this.#over) {
      this.#waiting = new AbortController();
      this.#following = false;
      this.#join("join");
      const how = this.#silent > 2 ? { steal: true } : { signal: this.#waiting.signal };
      const stopped = new Promise((resolve) => this.#waiting.signal.addEventListener("abort", resolve));
      let led: Promise<void> | undefined;
      // It ends with an error when the lock is stolen or no longer waited for; where it is refused, nothing hurries.
      await navigator.locks
        .request(this.#name, how, () => Promise.race([(led = this.#lead()), stopped]))
        .catch(() => !led && !this.#waiting.signal.aborted && new Promise((resolve) => setTimeout(resolve, 1_000)));
      this.#leading = false;
      this.#source?.stop();
      // What is heard from now on waits for what is still being told.
      await (this.#chain = this.#chain.then(() => led));
      this.#source = undefined;
    }
    clearInterval(watch);
    clearTimeout(this.#later);
    await this.#chain;
  }

  stop(): void {
    this.#over = true;
    this.#attempt?.end(new End("closed"));
    this.#source?.stop();
    this.#waiting.abort();
    // A page that is put away may neither hear anything nor hold the lock, even if a handler is not done.
    this.#channel.close();
  }

  wake(reason: string): void {
    if (this.#source) return this.#source.wake(reason);
    this.#join("join");
    // Of the network the leader hears by itself.
    if (reason === "refresh") this.#post({ kind: "wake" });
  }

  check(): void {
    if (this.#source) this.#source.check();
    else this.#join("check");
  }

  /** A leader that does not even answer has hung, and loses the lead. */
  #watch(): void {
    if (this.#leading) return;
    this.#silent += 1;
    if (this.#silent > 2) this.#waiting.abort();
    else if (this.#silent > 1 || (!this.#following && !this.#later)) this.#join("join");
  }

  #join(kind: "join" | "check"): void {
    clearTimeout(this.#later);
    this.#later = 0;
    this.#post({ kind });
  }

  /** Something has failed: it goes on from its own cursor, after a while that grows. */
  #joinLater(wait = this.#wait * (1 + Math.random())): void {
    this.#following = false;
    this.#wait = Math.min(2 * this.#wait, 30_000);
    clearTimeout(this.#later);
    if (!this.#over && !this.#leading) this.#later = setTimeout(() => this.#join("join"), wait);
  }

  async #lead(): Promise<void> {
    this.#leading = true;
    this.#silent = 0;
    this.#attempt?.end(new End("leads"));
    await this.#chain;
    // It may have been robbed by now.
    if (this.#over || !this.#leading) return;
    clearTimeout(this.#later);
    this.#due.clear();
    this.#begin();
    this.#source = new Source(this.#options, this.#door, this.#delivery, async (word) => {
      this.#tell(word);
      this.#busy = Date.now();
      try {
        await this.#delivery.take(word);
      } catch (error) {
        // It will be told again, which those who have dealt with it must not hear.
        this.#begin();
        throw error;
      } finally {
        this.#busy = 0;
      }
    });
    await this.#source.run();
  }

  /** A new term, from its own cursor. */
  #begin(): void {
    const { synced, ahead, cursor } = this.#delivery;
    this.#term = Math.max(this.#term + 1, Date.now() + Math.random());
    this.#told = undefined;
    this.#post({ kind: "lead", cursor: synced && !ahead.size ? cursor : undefined });
  }

  #tell(word: Word): void {
    this.#post(word);
    if (word.kind === "state") this.#told = word.cursor;
    else if (word.kind === "cursor") this.#told = word.ready || this.#told ? word.cursor || this.#told : undefined;
    else if (word.kind === "status") this.#told = word.status.is === "live" ? this.#told : undefined;
    // Signals have no place in the log; events without a cursor leave it unsaid.
    else if (word.event.id) this.#told &&= word.cursor;
  }

  /** As a leader; but not while its own program is stuck in an item, for then another should lead. */
  #answer({ kind }: Message): void {
    if (this.#busy && Date.now() > this.#busy + patience(this.#options)) return;
    if (kind === "wake") this.#source?.wake("refresh");
    if (kind !== "join" && kind !== "check") return;
    if (kind === "check") this.#source?.check();
    this.#post({ kind: "status", status: this.#delivery.status });
    if (this.#told) this.#post({ kind: "at", cursor: this.#told });
  }

  /** As a follower. */
  async #hear(message: Message): Promise<void> {
    const { term, kind } = message;
    const delivery = this.#delivery;
    if (kind === "join" || kind === "check" || kind === "wake" || this.#leading || this.#over || term < this.#term) return;
    if (term > this.#term) {
      this.#term = term;
      this.#due.clear();
      this.#following = kind === "lead" && this.#isAt(message.cursor);
    }
    if (kind === "lead") return;
    if (kind === "status") {
      this.#status = message;
      // A tab that has not caught up is not live.
      if (this.#following || message.status.is !== "live") await delivery.take(message);
      return;
    }
    if (!this.#following && !this.#later && (kind === "at" || (kind === "cursor" && message.ready))) return this.#catchUp(message.cursor);
    if (!this.#following || kind === "at") return;
    if (kind === "state") this.#due.clear();
    if (!this.#due.size) return delivery.take(message);
    if (kind !== "event") return;
    const { event } = message;
    if (!event.id || !this.#due.delete(event.id)) return delivery.take({ kind, event });
    if (this.#due.size || !message.cursor) return;
    // The leader has come by the snapshot.
    delivery.ahead.clear();
    await delivery.moveTo(message.cursor);
  }

  #isAt(cursor: string | undefined): boolean {
    const delivery = this.#delivery;
    return delivery.synced && !delivery.ahead.size && !!cursor && delivery.cursor === cursor;
  }

  async #catchUp(leader: string): Promise<void> {
    const delivery = this.#delivery;
    const wanted = this.#options.state !== false;
    const attempt = (this.#attempt = new Attempt(patience(this.#options)));
    this.#due.clear();
    try {
      if (!this.#isAt(leader) && (delivery.cursor || wanted)) {
        for await (const { events, state, cursor, reset, more } of this.#door.pages(delivery.cursor, wanted, attempt)) {
          for (const event of events) await delivery.take({ kind: "event", event });
          if (!more && (wanted || reset)) await delivery.take({ kind: "state", state: { type: "tidings.state", state, reset }, cursor });
          else await delivery.take({ kind: "cursor", cursor, ready: !more, page: !more });
        }
        // Of what the leader will bring, all that is not later than this snapshot.
        for (const id of await this.#after(leader, attempt)) this.#due.add(id);
        if (this.#due.size) for (const id of await this.#after(delivery.cursor, attempt)) this.#due.delete(id);
      }
      if (!delivery.cursor) await delivery.moveTo(leader);
      delivery.synced = true;
      this.#following = true;
      this.#wait = 1_000;
      if (this.#status) await delivery.take(this.#status);
    } catch (error) {
      if (this.#leading || this.#over) return;
      const { message, wait } = attempt.why ?? (error instanceof End ? error : new End("network"));
      const is = wait === Infinity ? "denied" : delivery.hasLived ? "stale" : "connecting";
      await delivery.take({ kind: "status", status: { is, reason: message, denied: delivery.status.denied } });
      // What is denied is asked for again when somebody wants it.
      this.#joinLater(wait === Infinity ? TIMER : wait);
    }
  }

  async #after(cursor: string | undefined, attempt: Attempt): Promise<string[]> {
    const ids = [];
    for await (const { events, reset } of this.#door.pages(cursor, false, attempt)) {
      // Nobody can tell any more; the leader will soon be elsewhere.
      if (reset) throw new End(reset);
      for (const { id } of events) ids.push(id);
    }
    return ids;
  }

  #post(message: Word | { kind: string; cursor?: string | undefined; reason?: string }): void {
    if (!this.#over) this.#channel.postMessage({ ...message, term: this.#term });
  }
}
