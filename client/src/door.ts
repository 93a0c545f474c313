import { type Attempt, End } from "./attempt.js";
import type { Options } from "./types.js";

/** How long an answer may take at least, in milliseconds, however often a stream beats: tokens and pages come over slow networks. */
const PATIENCE = 30_000;

/** A page of sync. */
export interface Page {
  cursor: string;
  reset: string | null;
  more: boolean;
  denied: string[];
  state?: Record<string, unknown>;
  events: { id: string; topic: string; type: string; at: string; data: unknown }[];
}

/** Asks the gateway, with a token that it takes. */
export class Door {
  /** The next token must be a new one. */
  stale = false;
  readonly #options: Options;

  constructor(options: Options) {
    this.#options = options;
  }

  /** An answer of 200; any other is an {@link End}. */
  async get(path: string, query: Record<string, unknown>, attempt: Attempt): Promise<Response> {
    const { url, topics = [], token, credentials = token ? "same-origin" : "include" } = this.#options;
    // By hand, since not every platform's URLSearchParams can be written.
    const search = [...topics.map((topic) => ["topic", topic]), ...Object.entries(query).filter(([, value]) => value)]
      .map(([name, value]) => `${name}=${encodeURIComponent(value as string)}`)
      .join("&");
    for (;;) {
      const fresh = this.stale;
      const bearer = await attempt.guard((async () => token?.({ fresh }))(), PATIENCE);
      this.stale = false;
      const answer = await attempt.guard(
        (this.#options.fetch ?? fetch)(`${`${url}`.replace(/\/$/, "")}/v1/${path}?${search}`, {
          headers: bearer ? { authorization: `Bearer ${bearer}` } : {},
          credentials,
          signal: attempt.signal,
          cache: "no-store",
        }),
        PATIENCE,
      );
      const { ok, status, headers } = answer;
      if (ok) return answer;
      if (status === 401 && token && !fresh) {
        this.stale = true;
        continue;
      }
      // Only the gateway says for good what may not be; a proxy may say anything while something is deployed.
      const problem = /problem/.test(headers.get("content-type") ?? "") && (await attempt.guard(answer.json(), PATIENCE));
      const name = /^urn:tidings:problem:(.*)/.exec(problem?.type)?.[1];
      const after = +(headers.get("retry-after") ?? 0);
      throw new End(name ?? `http ${status}`, name && status < 500 && status !== 408 ? Infinity : after > 0 ? after * 1000 : undefined);
    }
  }

  /** Pages of sync after a cursor, up to the last. */
  async *pages(since: string | undefined, state: boolean, attempt: Attempt): AsyncGenerator<Page> {
    for (let more = true; more; ) {
      const query = { since, limit: this.#options.limit, state: !state && "no" };
      const page: Page = await attempt.guard((await this.get("sync", query, attempt)).json(), PATIENCE);
      yield page;
      ({ more, cursor: since } = page);
    }
  }
}
