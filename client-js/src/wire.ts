import { broken, fromWire, ThroughlineError, type WireError } from "./error.js";
import type { Env, Gap, Position, Timing } from "./types.js";

/** What every carrier needs to know. */
export interface Wire {
  /** `{base}`, absolute and without a slash at its end. */
  readonly base: string;
  readonly env: Env;
  readonly timing: Timing;
  readonly credentials: RequestCredentials;
}

/** Anything the server says about a line or a channel (PROTOCOL §§2, 6). `{}` is a heartbeat. */
export interface Frame {
  open?: { line: number; heartbeat: number };
  close?: WireError;
  channel?: string;
  position?: Position;
  type?: string;
  data?: unknown;
  encoding?: string;
  gap?: Gap;
  end?: WireError;
}

/** The owner of a line, as its carrier sees it. */
export interface Owner {
  /** The hello of now: with the positions received so far. */
  hello(): string;
  /** Of a line that was left nothing is heard: it does no harm to go on telling. */
  frame(frame: Frame): void;
  /** The carrier broke or was refused; `spoken` if the server said why. */
  end(error: ThroughlineError, spoken: boolean): void;
}

/** One line under way. */
export interface Carrier {
  /** Leaves it unread. */
  close(): void;
  /** Says something in flight, where that is possible. */
  send?(frame: unknown): void;
  /** Goes on as another line (P6.8), where that is possible. */
  adopt?(owner: Owner): void;
}

export type Opener = (wire: Wire, owner: Owner) => Carrier;

/** Posts the hello of a line. */
export function post(wire: Wire, path: string, owner: Owner, signal: AbortSignal): Promise<Response> {
  const { env, base, credentials } = wire;
  return env.fetch!(base + path, { method: "POST", headers: { "Content-Type": "application/json" }, body: owner.hello(), credentials, signal });
}

/** What a response that isn't `ok` says: the server's own words (P8.1), or those of something in between. */
export async function refusal(response: Response, now: number): Promise<[ThroughlineError, boolean]> {
  const { status } = response;
  try {
    const { error } = (await response.json()) as { error: WireError };
    if (error.code) return [fromWire(error), true];
  } catch {
    // not ours
  }
  const header = response.headers.get("Retry-After");
  if (!header) return [broken(`HTTP status ${status}`), false];
  const after = Number(header) * 1000 || Date.parse(header) - now; // seconds or a date
  return [new ThroughlineError("unavailable", "later", `HTTP status ${status}`, Math.max(0, after || 0)), true];
}

/** Runs what reads a line over fetch until the line is over. Whatever it throws says so too. */
export function run(owner: Owner, read: (signal: AbortSignal) => Promise<[ThroughlineError, boolean]>): Carrier {
  const control = new AbortController();
  read(control.signal).then(
    (why) => owner.end(...why),
    (cause) => owner.end(broken(String(cause)), false),
  );
  return { close: () => control.abort() };
}
