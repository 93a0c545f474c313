// What a program makes of state and events, and whether that can be right. Runs in Node and in a page.
//
// Each topic counts: its state is how far, and each event tells the next number. So an event that is lost, doubled or out of
// order, or one that the state before it holds already, shows at once.

/** A client with a store that is fed by it. */
export class Model {
  constructor(connect, { name, ...options }) {
    this.name = name;
    this.connect = connect;
    this.options = options;
    this.counts = {};
    this.wrong = [];
    this.seen = { events: 0, states: 0, resets: 0, opened: 0 };
    this.statuses = [];
    /** What came last, for whoever wonders why something is wrong. */
    this.lately = [];
    this.open();
  }

  open() {
    this.seen.opened += 1;
    this.client = this.connect(this.options);
    this.client.onStatus(({ is, reason }) => {
      this.statuses.push(`${is}: ${reason}`);
      this.note(`${is}: ${reason}`);
    });
    const { feed } = this.options;
    if (feed === "iterator") this.iterate();
    else {
      this.client.onState((state) => this.take(state));
      this.client.on("counted", async (event) => {
        this.take(event);
        // The next may not come before this one is done with.
        if (feed === "slow") {
          this.busy = this.busy ? this.wrong.push("two at once") : true;
          await new Promise((resolve) => setTimeout(resolve, 2));
          this.busy = false;
        }
      });
    }
  }

  async iterate() {
    const { client } = this;
    for await (const item of client) {
      // What comes after it was closed would come again.
      if (client === this.client) this.take(item);
    }
  }

  note(what) {
    if (this.wrong.length < 5) this.lately = [...this.lately.slice(-60), `${new Date().toISOString()} ${what}, from ${this.client.cursor}`];
  }

  take({ type, topic, data, state, reset, id }) {
    this.note(state ? `state ${JSON.stringify(state)}` : `event ${id}, ${topic} ${data?.n}`);
    if (type === "tidings.state") {
      this.seen.states += 1;
      if (reset) this.seen.resets += 1;
      // Without state functions, a topic counts from its next event on.
      const counts = Object.fromEntries(Object.entries(state ?? {}).map(([topic, { n }]) => [topic, n]));
      if (!reset && this.seen.states > 1) {
        for (const topic in counts) {
          if (counts[topic] !== this.counts[topic]) this.wrong.push(`${topic}: ${this.counts[topic]} by events, ${counts[topic]} by state`);
        }
      }
      this.counts = counts;
      return;
    }
    this.seen.events += 1;
    const first = this.options.state === false && !(topic in this.counts);
    if (data.n !== this.counts[topic] + 1 && !first) this.wrong.push(`${topic}: ${data.n} (event ${id}) after ${this.counts[topic]}`);
    this.counts[topic] = data.n;
  }

  /** The program is ended and started again, as phones do; its store and cursor outlive it. */
  async restart() {
    await this.client.close();
    this.open();
  }

  told() {
    const { name, counts, wrong, seen, client, statuses } = this;
    const lately = wrong.length ? this.lately : [];
    return { name, counts, wrong, seen, lately, status: client.status, statuses: statuses.splice(0) };
  }
}

const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");

/** A token of HS256 that lasts for some seconds. */
export async function mint(secret, sub, topics, seconds) {
  const text = new TextEncoder();
  const key = await crypto.subtle.importKey("raw", text.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const part = (value) => base64url(text.encode(JSON.stringify(value)));
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, topics, exp: Math.floor(Date.now() / 1000) + seconds })}`;
  return `${signed}.${base64url(new Uint8Array(await crypto.subtle.sign("HMAC", key, text.encode(signed))))}`;
}

/** A token function as programs write them: the last token is kept until a fresh one is asked for. */
export function tokens(secret, sub, topics, seconds) {
  let kept;
  return async ({ fresh }) => {
    if (fresh || !kept) kept = await mint(secret, sub, topics, seconds);
    return kept;
  };
}

/** A cursor store that outlives the client, in step with the store of its model. */
export function keptCursor() {
  let kept;
  return { get: async () => kept, set: async (cursor) => void (kept = cursor) };
}
