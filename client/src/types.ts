/** The types of events, each with its data: `{ "payment.settled": { payment: number } }`. */
export type EventMap = Record<string, unknown>;

/** What was published, or signalled. */
export interface TidingsEvent<Type extends string = string, Data = unknown> {
  /** Which event it is: a 64-bit number as text. Signals have none. */
  readonly id?: string;
  readonly topic: string;
  readonly type: Type;
  /** When it was inserted: RFC 3339, UTC, microseconds. */
  readonly at: string;
  readonly data: Data;
  /** An ephemeral message, which is not kept and may be lost. */
  readonly signal?: true;
}

/** Any event of a map. */
export type EventOf<Events extends EventMap> = {
  [Type in keyof Events & string]: TidingsEvent<Type, Events[Type]>;
}[keyof Events & string];

/** The state of all topics, as it was in one snapshot of the database: it takes the place of all that was known. */
export interface State<Shape = Record<string, unknown>> {
  readonly type: "tidings.state";
  /** By topic, what its state function returned; `undefined` where the client asks for no state. */
  readonly state: Shape | undefined;
  /** Why events are missing before it (`trimmed`, `diverged`, `malformed`), or `null` when none is. */
  readonly reset: string | null;
}

/** What a client hands over, in order: the state, and events that are not yet in it. */
export type Item<Events extends EventMap, Shape> = EventOf<Events> | State<Shape>;

/**
 * How it stands with the connection: `connecting` for the first time; `live`; `stale`, shown is what was
 * true before the connection was lost; `offline`, there is no network; `denied`, and the same request
 * will not be made again before {@link Client.refresh} or a return to the page.
 */
export interface Status {
  readonly is: "connecting" | "live" | "stale" | "offline" | "denied";
  /** Why, in a word: the reason of a bye or reset, the type of a problem, `network`, `silence`. */
  readonly reason: string;
  /** Topics that were asked for and that the token does not cover. */
  readonly denied: readonly string[];
}

/** Where a cursor is kept while the program does not run. */
export interface CursorStore {
  get(): string | null | undefined | Promise<string | null | undefined>;
  set(cursor: string): void | Promise<void>;
}

/** What {@link connect} needs to know. */
export interface Options {
  /** Where the gateway is: `/v1/…` is put behind it. In a page it may be relative. */
  url: string | URL;
  /** Topics to follow; without any, the user's own. */
  topics?: readonly string[];
  /**
   * Tells the token. `fresh` asks for a new one, since the last was refused or is about to expire. Who returns
   * nothing relies on a cookie, and may renew that here.
   */
  token?: (wish: { fresh: boolean }) => string | undefined | void | Promise<string | undefined | void>;
  /** The cursor of a page that the server rendered: the page is up to date, and needs no state to begin with. */
  since?: string;
  /** Where the cursor outlives the program; in memory unless given. */
  cursors?: CursorStore;
  /** `false`: there are no state functions, and without a cursor events count from now on. */
  state?: boolean;
  /** One stream for all tabs of the origin that share this name; `false`: one for each. By default, tabs with the same URL, topics, `state` and user, if the token says whose it is. */
  share?: string | false;
  /** Asks every so many milliseconds instead of holding a stream; the default (5,000) where `fetch` cannot stream. */
  poll?: number;
  /** The gateway's `TIDINGS_HEARTBEAT`, in milliseconds (20,000): after 2.5 of silence the stream is taken for dead. */
  beat?: number;
  /** Events on a page of sync; the gateway's own choice unless given. */
  limit?: number;
  /** As in `fetch`: `same-origin` with tokens, else `include`, unless given. */
  credentials?: RequestCredentials;
  /** Another `fetch`, for example one that can stream in React Native. */
  fetch?: typeof fetch;
}
