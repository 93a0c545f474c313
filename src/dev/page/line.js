// One stream of server-sent events that can be cut and comes back by cursor. It is read with `fetch`
// instead of EventSource, since only then can the page send its token as a header and show every
// `id:`. Whatever ends the stream, the next one begins with the last cursor: that is all there is
// to recovery.

const SILENCE_MS = 60_000; // a beat comes every 20 s

export class Line {
  cursor = "";
  #listener;
  #abort = null;
  #live = false;
  #retryMs = 3000;
  #timer = 0;
  #silence = 0;

  // The listener is told of each event, of the gateway's own words, of changes of state
  // (opening, live, away, closed), and gives the topics and the token of each new stream.
  constructor(listener) {
    this.#listener = listener;
  }

  get live() {
    return this.#live;
  }

  async open() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    const abort = (this.#abort = new AbortController());
    this.#live = false;
    this.#listener.changed("opening", this.cursor ? "coming back" : "connecting");
    const { topics, token } = this.#listener;
    const query = topics.map((topic) => `topic=${encodeURIComponent(topic)}`).join("&");
    const headers = { authorization: `Bearer ${token}` };
    if (this.cursor) headers["last-event-id"] = this.cursor;
    let why = "the gateway ended the stream";
    try {
      const response = await fetch(`/v1/events?${query}`, { headers, signal: abort.signal, cache: "no-store" });
      if (!response.ok) return this.#refused(response);
      for await (const block of blocks(response.body, () => this.#heard(abort))) {
        if (abort !== this.#abort) return;
        this.#take(block);
      }
    } catch (error) {
      if (error.name !== "AbortError" && error.name !== "TypeError") throw error;
      why = "the line was lost";
    }
    if (abort === this.#abort) this.#gone(why, this.#retryMs);
  }

  // Cuts the line as a lost network would, for so long, or until `open` where `awayMs` is null.
  cut(awayMs) {
    const abort = this.#abort;
    this.#abort = null;
    abort?.abort();
    this.#gone("you cut the line", awayMs);
  }

  // A line that says nothing for three beats is dead, although nobody told us.
  #heard(abort) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => abort.abort(), SILENCE_MS);
  }

  #take(block) {
    if (block.retry) this.#retryMs = block.retry;
    if (block.id) this.cursor = block.id;
    if (block.data === undefined) return;
    const data = JSON.parse(block.data);
    if (block.event === "message") return this.#listener.event(data, block.id, !this.#live);
    if (block.event === "tidings.ready") {
      this.#live = true;
      this.#listener.changed("live", "live");
    }
    this.#listener.said(block.event, data);
  }

  #gone(why, awayMs) {
    clearTimeout(this.#timer);
    clearTimeout(this.#silence);
    this.#live = false;
    const back = awayMs === null ? "until you come back" : `back in ${(awayMs / 1000).toFixed(1)} s`;
    this.#listener.changed("away", `away, ${back}`, `${why}; ${back}`);
    if (awayMs !== null) this.#timer = setTimeout(() => this.open(), awayMs);
  }

  #refused(response) {
    this.#abort = null;
    this.#listener.changed("closed", "refused");
    this.#listener.refused(response);
  }
}

// Blocks of the form { event, id, data, retry }.
async function* blocks(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let block = { event: "message" };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const text of lines) {
      if (text === "") {
        yield block;
        block = { event: "message" };
        continue;
      }
      const [, field, content] = /^([^:]*):? ?(.*)$/.exec(text);
      if (field === "data" && block.data !== undefined) block.data += `\n${content}`;
      else if (field === "retry") block.retry = Number(content);
      else if (field !== "") block[field] = content;
    }
  }
}
