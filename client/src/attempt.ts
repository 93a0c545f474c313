/** Why an attempt has ended, and how long to wait before the next. */
export class End extends Error {
  /** In milliseconds; unless given, what the gateway has asked for; `Infinity`: until something has changed. */
  readonly wait: number | undefined;

  constructor(reason: string, wait?: number) {
    super(reason);
    this.wait = wait;
  }
}

/** One try to reach the gateway, which can be ended, and ends by itself when nothing comes for too long. */
export class Attempt {
  /** When something came last. */
  heard = Date.now();
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #patience: number;
  readonly #ended: Promise<never>;

  /** `patience` in milliseconds. */
  constructor(patience: number) {
    this.signal = this.#controller.signal;
    this.#patience = patience;
    this.#ended = new Promise((_, reject) => {
      this.signal.addEventListener("abort", () => reject(this.signal.reason));
    });
    this.#ended.catch(() => {});
  }

  end(why: End): void {
    this.#controller.abort(why);
  }

  /** Whether it has been silent for longer than it should be. */
  get overdue(): boolean {
    return Date.now() - this.heard > this.#patience;
  }

  /** What is waited for, as long as there is patience. */
  async guard<T>(what: Promise<T>): Promise<T> {
    const timer = setTimeout(() => this.end(new End("silence")), this.#patience);
    try {
      return await Promise.race([what, this.#ended]);
    } finally {
      clearTimeout(timer);
      this.heard = Date.now();
    }
  }
}
