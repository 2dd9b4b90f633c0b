import { asError, broken, fromWire, never, ThroughlineError, type WireError } from "./error.js";
import type { Payload } from "./payload.js";
import type { Env, Gap, Position, Timing } from "./types.js";

/** What every carrier needs to know. */
export interface Wire {
  /** `{base}`, absolute and without a slash at its end. */
  readonly base: string;
  readonly env: Env;
  readonly timing: Timing;
  readonly credentials: RequestCredentials;
}

/** What an `open` says of the session (P6.3), and what holds until one did. */
export interface Session {
  /** Only in memory, never in an address (P6.16). */
  token: string;
  /** How long the log remembers producers at least (P9.6). */
  remembered: number;
  /** The most bytes of a frame from us (P6.14). */
  limit: number;
}

/** What became of one frame of a batch (P9.4, P9.5). */
export interface Outcome {
  seq: number;
  position?: Position;
  duplicate?: boolean;
  error?: WireError;
  retry?: WireError;
  tried?: boolean;
}

/** Who is in a channel (P10.2). */
export interface Attendance {
  version?: string;
  total?: number;
  members?: Member[];
  joined?: Member[];
  left?: string[];
  end?: WireError;
}

/** A session that is in a channel. `subject` and `info` are there if the server's program gave them. */
export interface Member {
  readonly id: string;
  readonly subject?: string;
  readonly info?: unknown;
}

/** Anything the server says (PROTOCOL §§2, 6, 9, 10). `{}` is a heartbeat. */
export interface Frame extends Payload {
  open?: Partial<Session> & { line: number; heartbeat: number };
  close?: WireError;
  channel?: string;
  position?: Position;
  /** The server named the channel: this opening answers no question (P6.19). */
  given?: boolean;
  type?: string;
  gap?: Gap;
  end?: WireError;
  presence?: Attendance;
  refresh?: object;
  published?: Outcome[];
  answer?: Payload & { id: number; error?: WireError };
}

/** The owner of a line, as its carrier sees it. */
export interface Owner {
  /** The hello of now: with the positions received so far. */
  hello(): string;
  /** Of a line that was left nothing is heard: it does no harm to go on telling. */
  frame(frame: Frame): void;
  /** The carrier broke or was refused. */
  end(error: ThroughlineError): void;
}

/** One line under way. */
export interface Carrier {
  /** Leaves it unread. */
  close(): void;
  /** Says something in flight, where that is possible. */
  send?(frame: object): void;
  /** Goes on as another line (P6.8), where that is possible. */
  adopt?(owner: Owner): void;
}

export type Opener = (wire: Wire, owner: Owner) => Carrier;

/** Posts JSON, unless `more` says otherwise. A response that isn't `ok` is thrown, as the error it stands for. */
export async function post({ env, base, credentials }: Wire, path: string, body: string | undefined, more: RequestInit): Promise<Response> {
  const response = await env.fetch!(base + path, { method: "POST", headers: { "Content-Type": "application/json" }, body, credentials, ...more });
  if (!response.ok) throw await refusal(response, env.now());
  return response;
}

/** The server's own words (P8.1), or those of something in between. */
async function refusal(response: Response, now: number): Promise<ThroughlineError> {
  const { status } = response;
  try {
    const { error } = (await response.json()) as { error: WireError };
    if (error.code) return fromWire(error);
  } catch {
    // not ours
  }
  const message = `HTTP ${status}`;
  const header = response.headers.get("Retry-After");
  if (header) return new ThroughlineError("network", "later", message, Math.max(0, Number(header) * 1000 || Date.parse(header) - now || 0)); // seconds or a date
  return status > 499 || status === 408 || status === 429 ? broken(message) : never("refused", message);
}

/** Runs what reads a line over fetch, until it throws. */
export function run(owner: Owner, read: (signal: AbortSignal) => Promise<never>): Carrier {
  const control = new AbortController();
  read(control.signal).catch((cause) => owner.end(asError(cause)));
  return { close: () => control.abort() };
}
