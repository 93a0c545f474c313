// A cursor, taken apart and explained in sentences. Its text is opaque to clients; this page reads it
// because it exists to show how it works. Its form is written down in src/cursor/text.rs.

import { element, make } from "./small.js";

function explain(text) {
  const parts = text.split("~");
  if (parts[0] !== "1" || ![3, 5].includes(parts.length)) return [["A version that this page does not know."]];
  const first = snapshot(parts[1]);
  const whole = ["Seen: every transaction below ", first.xmax, ...first.open];
  if (parts.length === 3) {
    const [newest, tag] = parts[2].split(".");
    return [whole, ["The newest event seen is ", newest, "; its tag ", tag, " proves that this is still the same history."]];
  }
  const [sent, left, tag] = parts[4].split(".");
  const next = parts[3].startsWith("-") ? snapshot(parts[3].slice(1)).xmax
    : String(BigInt(first.xmax) + BigInt(parts[3].split("_")[0]));
  return [
    whole,
    ["And on the way to the next position, below ", next, ", its events up to ", sent, left === "0" ? "." : `; ${left} ids to go.`],
    ["The next position's newest event has the tag ", tag, ", which proves that this is still the same history."],
  ];
}

function snapshot(text) {
  const [lowest, ...distances] = text.split(".").map(BigInt);
  if (distances.length === 0) return { xmax: String(lowest), open: [", none of them open."] };
  const open = [lowest];
  for (const distance of distances.slice(1)) open.push(open.at(-1) + distance);
  const some = open.slice(0, 5).join(", ") + (open.length > 5 ? ", …" : "");
  return { xmax: String(lowest + distances[0]), open: [", except ", some, open.length === 1 ? ", which was open." : ", which were open."] };
}

export function showCursor(text, which) {
  if (showCursor.shown === text + which) return;
  showCursor.shown = text + which;
  element("which").textContent = which;
  const colours = ["s", "b", "b", "b.second", "b.second"];
  const pieces = text.split("~").flatMap((part, index) => {
    const [tag, style = ""] = (colours[index] ?? "b").split(".");
    return [...(index ? [make("s", "~")] : []), make(tag, part, style)];
  });
  element("cursor").replaceChildren(...pieces);
  element("explained").replaceChildren(...explain(text).map((words) => {
    const item = make("li", "");
    item.append(...words.map((word, index) => (index % 2 ? make("b", word) : word)));
    return item;
  }));
}
