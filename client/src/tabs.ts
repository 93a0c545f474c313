import { Attempt, End } from "./attempt.js";
import type { Delivery, Word } from "./delivery.js";
import type { Door } from "./door.js";
import { patience, Source } from "./source.js";
import type { EventMap, Options } from "./types.js";

/** What tabs tell each other. Whose term is higher leads, so that one who has lost the lead and does not know it is not heard. */
type Message = { term: number } & (
  /** A tab has come, or has heard nothing for long. */
  | { kind: "join" }
  /** Somebody wants a new attempt. */
  | { kind: "wake"; reason: string }
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
  #status: (Word & { kind: "status" }) | undefined;
  readonly #due = new Set<string>();
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
      this.#silent = 0;
      if (this.#leading) this.#answer(data);
      else this.#chain = this.#chain.then(() => this.#hear(data));
    };
  }

  /** Goes on until {@link stop}. */
  async run(): Promise<void> {
    const watch = setInterval(() => this.#watch(), patience(this.#options));
    while (!this.#over) {
      this.#waiting = new AbortController();
      this.#following = false;
      this.#post({ kind: "join" });
      const how = this.#silent > 2 ? { steal: true } : { signal: this.#waiting.signal };
      let led: Promise<void> | undefined;
      // It ends with an error when the lock is stolen, or no longer waited for.
      await navigator.locks.request(this.#name, how, () => (led = this.#lead())).catch(() => {});
      this.#leading = false;
      this.#source?.stop();
      // What is heard from now on waits for what is still being told.
      await (this.#chain = this.#chain.then(() => led));
      this.#source = undefined;
    }
    clearInterval(watch);
    this.#channel.close();
  }

  stop(): void {
    this.#over = true;
    this.#attempt?.end(new End("closed"));
    this.#source?.stop();
    this.#waiting.abort();
  }

  wake(reason: string): void {
    if (this.#source) this.#source.wake(reason);
    // The leader hears of the network by itself.
    else this.#post(reason === "refresh" ? { kind: "wake", reason } : { kind: "join" });
  }

  check(): void {
    if (this.#source) this.#source.check();
    else this.#post({ kind: "join" });
  }

  /** A leader that does not even answer has hung, and loses the lead. */
  #watch(): void {
    if (this.#leading) return;
    this.#silent += 1;
    if (this.#silent > 2) this.#waiting.abort();
    else if (this.#silent > 1 || !this.#following) this.#post({ kind: "join" });
  }

  async #lead(): Promise<void> {
    this.#leading = true;
    this.#silent = 0;
    this.#attempt?.end(new End("leads"));
    await this.#chain;
    // It may have been robbed by now.
    if (this.#over || !this.#leading) return;
    this.#term = Math.max(this.#term + 1, Date.now());
    this.#due.clear();
    this.#told = undefined;
    const delivery = this.#delivery;
    this.#post({ kind: "lead", cursor: delivery.synced && !delivery.ahead.size ? delivery.cursor : undefined });
    this.#source = new Source(this.#options, this.#door, delivery, (word) => {
      this.#tell(word);
      return delivery.take(word);
    });
    await this.#source.run();
  }

  #tell(word: Word): void {
    this.#post(word);
    if (word.kind === "state") this.#told = word.cursor;
    else if (word.kind === "cursor") this.#told = word.ready || this.#told ? word.cursor || this.#told : undefined;
    else if (word.kind === "status") this.#told = word.status.is === "live" ? this.#told : undefined;
    // Signals have no place in the log; events without a cursor leave it unsaid.
    else if (word.event.id) this.#told &&= word.cursor;
  }

  /** As a leader. */
  #answer(message: Message): void {
    if (message.kind === "wake") this.#source?.wake(message.reason);
    if (message.kind !== "join") return;
    this.#source?.check();
    this.#post({ kind: "status", status: this.#delivery.status });
    if (this.#told) this.#post({ kind: "at", cursor: this.#told });
  }

  /** As a follower. */
  async #hear(message: Message): Promise<void> {
    const { term, kind } = message;
    const delivery = this.#delivery;
    if (kind === "join" || kind === "wake" || this.#leading || this.#over || term < this.#term) return;
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
    if (!this.#following && (kind === "at" || (kind === "cursor" && message.ready))) return this.#catchUp(message.cursor);
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
          else await delivery.take({ kind: "cursor", cursor, ready: !more });
        }
        // Of what the leader will bring, all that is not later than this snapshot.
        for (const id of await this.#after(leader, attempt)) this.#due.add(id);
        if (this.#due.size) for (const id of await this.#after(delivery.cursor, attempt)) this.#due.delete(id);
      }
      if (!delivery.cursor) await delivery.moveTo(leader);
      delivery.synced = true;
      this.#following = true;
      if (this.#status) await delivery.take(this.#status);
    } catch (error) {
      if (attempt.signal.aborted && (this.#leading || this.#over)) return;
      const { message, wait } = error instanceof End ? error : new End("network");
      const is = wait === Infinity ? "denied" : delivery.hasLived ? "stale" : "connecting";
      await delivery.take({ kind: "status", status: { is, reason: message, denied: delivery.status.denied } });
      if (wait !== Infinity) setTimeout(() => this.#post({ kind: "join" }), wait ?? 1_000 + 1_000 * Math.random());
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
