// What the other parts of the page share: elements, the clock, and how times are written.

export const element = (id) => document.getElementById(id);

// Finer than Date.now(), unless the machine has slept or its clock was set.
export function now() {
  const fine = performance.timeOrigin + performance.now();
  return Math.abs(fine - Date.now()) > 5 ? Date.now() : fine;
}

// `2026-11-20T14:28:00.123456Z` with its microseconds.
export function instant(at) {
  return Date.parse(`${at.slice(0, 19)}Z`) + Number(`0${at.slice(19, -1)}`) * 1000;
}

export function duration(ms) {
  const [number, unit] = ms < 9.95 ? [Math.max(ms, 0).toFixed(1), "ms"] : ms < 1000 ? [ms.toFixed(0), "ms"] : [(ms / 1000).toFixed(1), "s"];
  return [`${number}\u2009`, make("small", unit)];
}

export function make(tag, text, style = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (style) made.className = style;
  return made;
}
