import type { CursorStore } from "./types.js";

/**
 * Keeps the cursor in `localStorage`, under this name: name the user in it, for a cursor of one serves no other. Where the browser
 * keeps nothing (private windows), nothing is kept.
 */
export function localCursors(name: string): CursorStore {
  const guarded = <T>(act: () => T) => {
    try {
      return act();
    } catch {
      return undefined;
    }
  };
  return {
    get: () => guarded(() => localStorage.getItem(name)),
    set: (cursor) => guarded(() => localStorage.setItem(name, cursor)),
  };
}
