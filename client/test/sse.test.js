// Blocks are the same however a body is cut into pieces.

import assert from "node:assert/strict";
import { test } from "node:test";
import { blocks } from "../dist/sse.js";

const body = [
  'retry: 2123\nevent: tidings.ready\ndata: {"resumed":false}\nid: 1~759~6.cd735208\n\n',
  'data: {"id":"7","data":{"by": "Zoë — 北京 🎉", "text": "a: b\\nc"}}\nid: 1~761~7.e3f29eb1\n\n',
  'data: {"signal":true}\n\n',
  "retry: 86000\n\n",
  'event: tidings.bye\ndata: {"reason":"drain"}\nretry: 1787\nid: 1~761~7.e3f29eb1\n\n',
  'data: {"id":"8"}\nid: 1~7',
].join("");

const expected = [
  { event: "tidings.ready", data: '{"resumed":false}', id: "1~759~6.cd735208" },
  { event: "", data: '{"id":"7","data":{"by": "Zoë — 北京 🎉", "text": "a: b\\nc"}}', id: "1~761~7.e3f29eb1" },
  { event: "", data: '{"signal":true}', id: "" },
  { event: "tidings.bye", data: '{"reason":"drain"}', id: "1~761~7.e3f29eb1" },
];

async function read(pieces) {
  const found = [];
  const waits = [];
  const stream = new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
  for await (const block of blocks(stream, (read) => read, (wait) => waits.push(wait))) found.push(block);
  return { found, waits };
}

test("whatever the pieces are", async () => {
  const bytes = new TextEncoder().encode(body);
  for (let size = 1; size <= bytes.length; size += 1) {
    const pieces = [];
    for (let from = 0; from < bytes.length; from += size) pieces.push(bytes.slice(from, from + size));
    const { found, waits } = await read(pieces);
    // What was begun and not ended is none, and neither is its id.
    assert.deepEqual(found, expected, `pieces of ${size}`);
    assert.deepEqual(waits, [2123, 86000, 1787], `pieces of ${size}`);
  }
});

test("who stops reading closes the body", async () => {
  let cancelled = false;
  const stream = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode("data: {}\n\n")),
    cancel: () => void (cancelled = true),
  });
  for await (const block of blocks(stream, (read) => read, () => {})) {
    assert.equal(block.data, "{}");
    break;
  }
  assert.ok(cancelled);
});
