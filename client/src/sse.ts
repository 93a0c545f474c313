/** A block of a stream of server-sent events. */
export interface Block {
  event: string;
  data: string;
  id: string;
}

/**
 * The blocks of a body as they come, each whole; `retry` hears of a wait as soon as it is said. Every read passes through `guard`,
 * so that only waiting for bytes counts as silence, and not the time that a block's reader takes.
 *
 * Line ends are LF, as the gateway writes them.
 */
export async function* blocks(
  body: ReadableStream<Uint8Array>,
  guard: <T>(read: Promise<T>) => Promise<T>,
  retry: (wait: number) => void,
): AsyncGenerator<Block> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let begun = "";
  let block: Block = { event: "", data: "", id: "" };
  try {
    for (;;) {
      const { done, value } = await guard(reader.read());
      if (done) return;
      const lines = (begun + decoder.decode(value, { stream: true })).split("\n");
      begun = lines.pop() as string;
      for (const line of lines) {
        const colon = line.indexOf(": ");
        const [field, text] = [line.slice(0, colon), line.slice(colon + 2)];
        if (field === "retry") retry(+text);
        else if (field === "event" || field === "data" || field === "id") block[field] = text;
        else if (!line) {
          if (block.data) yield block;
          block = { event: "", data: "", id: "" };
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
