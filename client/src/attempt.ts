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
  /** Why it has ended. `AbortSignal` does not keep that everywhere. */
  why: End | undefined;
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #patience: number;
  /** Until when something must come; nothing is waited for unless it is set. */
  #due = Infinity;
  #fail = (_: End) => {};

  /** `patience` in milliseconds. */
  constructor(patience: number) {
    this.signal = this.#controller.signal;
    this.#patience = patience;
  }

  end(why: End): void {
    this.why ??= why;
    this.#controller.abort();
    this.#fail(this.why);
  }

  /** Throws why it has ended, if it has. */
  check(): void {
    if (this.why) throw this.why;
  }

  /** Whether it has been silent for longer than it should be, though its timer may have slept. */
  get overdue(): boolean {
    return Date.now() > this.#due;
  }

  /** What is waited for, as long as there is patience: for so many milliseconds at least. One thing at a time. */
  async guard<T>(what: Promise<T>, least = 0): Promise<T> {
    const patience = Math.max(this.#patience, least);
    const timer = setTimeout(() => this.end(new End("silence")), patience);
    this.#due = Date.now() + patience;
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#fail = reject;
        if (this.why) reject(this.why);
        what.then(resolve, reject);
      });
    } finally {
      clearTimeout(timer);
      this.#due = Infinity;
      this.#fail = () => {};
    }
  }
}
