import type { Env, Lifecycle, Timing } from "./types.js";

export const defaultTiming: Timing = {
  connect: 10_000,
  proof: 100,
  base: 500,
  cap: 30_000,
  prompt: 100,
  stable: 10_000,
  settle: 5_000,
  stagger: 800,
  join: 1_500,
  soon: 1_000,
  upward: [60_000, 300_000, 900_000],
  memory: 1_800_000,
  spread: 1_000,
  wait: 25_000,
  publish: 30_000,
};

interface Globals {
  fetch?: Env["fetch"];
  addEventListener?: unknown;
  document?: { baseURI: string };
  location?: { href: string };
  navigator?: { connection?: Lifecycle & { type?: string } };
}

/** The globals of where we run. Bound, because browsers refuse `fetch` and timers called as methods of anything else. */
export function surroundings(): Env {
  const here = globalThis as unknown as Omit<typeof globalThis, keyof Globals> & Globals;
  return {
    fetch: here.fetch?.bind(here),
    WebSocket: here.WebSocket as Env["WebSocket"],
    storage: storage(here),
    now: Date.now,
    steady: () => performance.now(),
    random: Math.random,
    secret: () => here.crypto.getRandomValues(new Uint8Array(16)),
    setTimeout: here.setTimeout.bind(here),
    clearTimeout: here.clearTimeout.bind(here) as Env["clearTimeout"],
    lifecycle: here.addEventListener ? (here as unknown as Lifecycle) : undefined,
    connection: here.navigator?.connection,
    console: here.console,
    base: here.document?.baseURI ?? here.location?.href,
  };
}

/** Reading `localStorage` throws where cookies are blocked. */
function storage(here: Globals & { localStorage: Storage }): Env["storage"] {
  try {
    return here.document && here.localStorage;
  } catch {
    return undefined;
  }
}
