import type { Timing } from "./types.js";

/** Full jitter: anything up to base · 2^(attempt-1), capped. The floor keeps an unlucky draw from becoming a hot loop. */
export function backoff(attempt: number, random: number, t: Timing): number {
  const most = Math.min(t.cap, t.base * 2 ** Math.min(attempt - 1, 30));
  return Math.max(t.base / 10, random * most);
}
