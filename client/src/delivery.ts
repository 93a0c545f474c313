import { End } from "./attempt.js";
import type { CursorStore, EventMap, EventOf, Item, State, Status } from "./types.js";

/** What a source says, in order; it can be posted to other tabs. */
export type Word =
  | { kind: "event"; event: EventOf<EventMap>; cursor?: string | undefined }
  | { kind: "state"; state: State; cursor: string }
  /** Nothing is missing up to here: on a beat, (`ready`) when a replay is over, and after the last `page` of a sync, which is later than all that was told before. */
  | { kind: "cursor"; cursor: string; ready: boolean; page?: boolean }
  | { kind: "status"; status: Status };

/** Takes words, and is done with one when its promise is. */
export type Say = (word: Word) => Promise<void>;

type Sink = (item: unknown) => unknown;

/** The types of whatever has no type of its own. */
export const STATE = "tidings.state";
export const STATUS = "tidings.status";
const ANY = "*";
/** Events and states. */
const ALL = "tidings.all";

/** What a sink returns that has not dealt with its item, since all is over. */
const UNDONE = Symbol();

/**
 * Hands words over to whoever has asked for them: one after the other, the next when all are done with the last. Only then
 * its cursor is kept, so that what was not handled comes again.
 */
export class Delivery<Events extends EventMap, Shape> {
  cursor: string | undefined;
  status: Status = { is: "connecting", reason: "", denied: [] };
  /** Whether it has ever been live. */
  hasLived = false;
  /** Whether the program knows the state, so that events can follow it. */
  synced: boolean;
  /** Events that were handed over although the cursor has not seen them: they are not handed over again. */
  readonly ahead = new Set<string>();
  readonly #sinks: [type: string, sink: Sink][] = [];
  readonly #store: CursorStore | undefined;
  readonly #over: AbortSignal;

  /** Hands over until `over`. */
  constructor(synced: boolean, cursor: string | undefined, store: CursorStore | undefined, over: AbortSignal) {
    this.synced = synced;
    this.cursor = cursor;
    this.#store = store;
    this.#over = over;
  }

  /** Has a sink be given all items of a type; what is returned takes it back. */
  add(type: string, sink: Sink): () => void {
    const entry: [string, Sink] = [type, sink];
    this.#sinks.push(entry);
    return () => {
      const place = this.#sinks.indexOf(entry);
      if (place >= 0) this.#sinks.splice(place, 1);
    };
  }

  /** Takes a word from a source. */
  async take(word: Word): Promise<void> {
    // Nobody is there any more to deal with it.
    if (this.#over.aborted) return;
    if (word.kind === "status") {
      if (JSON.stringify(this.status) === JSON.stringify(word.status)) return;
      this.status = word.status;
      this.hasLived ||= this.status.is === "live";
      await this.#give([STATUS], this.status);
      return;
    }
    if (word.kind === "event") {
      const { id, type } = word.event;
      if (id && this.ahead.has(id)) {
        if (word.cursor) this.ahead.delete(id);
        return this.moveTo(word.cursor);
      }
      if (!(await this.#give([type, ANY, ALL], word.event))) return;
      if (id && !word.cursor) this.ahead.add(id);
    } else {
      if (word.kind === "state") {
        if (!(await this.#give([STATE, ALL], word.state))) return;
      }
      if (word.kind === "state" || word.page) this.ahead.clear();
    }
    await this.moveTo(word.cursor);
    if (word.kind === "state") this.synced = true;
  }

  /** All up to this cursor is done with. If that cannot be kept, what came since the last one comes again. */
  async moveTo(cursor: string | undefined): Promise<void> {
    if (!cursor || cursor === this.cursor) return;
    try {
      await this.#store?.set(cursor);
    } catch {
      this.ahead.clear();
      throw new End("cursors");
    }
    this.cursor = cursor;
  }

  /** Gives an item to all who want it, and tells whether they have dealt with it. */
  async #give(types: string[], item: unknown): Promise<boolean> {
    const wanted = this.#sinks.filter(([type]) => types.includes(type));
    const results = await Promise.all(
      wanted.map(async ([, sink]) => {
        try {
          return await sink(item);
        } catch (error) {
          // It has been given its item; its failure is one of the program.
          queueMicrotask(() => {
            throw error;
          });
        }
      }),
    );
    return !results.includes(UNDONE);
  }

  /** All items as they come; the next is asked for when the last is done with. */
  async *items(): AsyncGenerator<Item<Events, Shape>> {
    let wake = () => {};
    let next: { item: unknown; done: (how?: unknown) => void } | undefined;
    const remove = this.add(ALL, (item) => new Promise((done) => {
      next = { item, done };
      wake();
    }));
    const end = () => wake();
    this.#over.addEventListener("abort", end);
    try {
      while (!this.#over.aborted) {
        if (next) {
          const { item, done } = next;
          next = undefined;
          try {
            yield item as Item<Events, Shape>;
          } finally {
            done();
          }
        } else {
          await new Promise<void>((resolve) => (wake = resolve));
        }
      }
    } finally {
      remove();
      this.#over.removeEventListener("abort", end);
      next?.done(UNDONE);
    }
  }
}
