/** What the client should do about a refusal: come back at once, after a while, or not as it is. */
export type ErrorClass = "now" | "later" | "never";

/** Every failure this library reports. Codes of the server are those of PROTOCOL §8; the client's own are listed in the README. */
export class ThroughlineError extends Error {
  override readonly name = "ThroughlineError";
  /** What went wrong, for programs. */
  readonly code: string;
  /** Whether coming back helps. */
  readonly class: ErrorClass;
  /** With class `later`: in how many milliseconds. */
  readonly after?: number;

  constructor(code: string, kind: ErrorClass, message: string, after?: number) {
    super(message);
    this.code = code;
    this.class = kind;
    this.after = after;
  }
}

/** A carrier that broke, for a reason nobody spoke. */
export const broken = (message: string): ThroughlineError => new ThroughlineError("network", "now", message);

/** Whatever was thrown: our own errors, or a carrier that broke. */
export const asError = (cause: unknown): ThroughlineError => (cause instanceof ThroughlineError ? cause : broken(String(cause)));

/** Nothing to come back for. */
export const never = (code: string, message = code): ThroughlineError => new ThroughlineError(code, "never", message);

/** The caller's own signal or `close()` ended it. */
export const aborted = (): ThroughlineError => never("aborted");

/** The shape of a refusal on the wire (P6.9, P6.13, P8.1). */
export interface WireError {
  code?: string;
  class?: string;
  after?: number;
  message?: string;
}

/**
 * An unknown class is read as `now`: coming back with backoff is never wrong for long. A carrier that is closed to us (P8.5) is like one
 * that doesn't work: others are open.
 */
export function fromWire(wire: WireError): ThroughlineError {
  if (wire.code === "broken_carrier") return broken(wire.code);
  const kind = wire.class === "later" || wire.class === "never" ? wire.class : "now";
  const after = kind === "later" ? Math.max(0, Number(wire.after) || 0) : undefined;
  return new ThroughlineError(String(wire.code), kind, wire.message || String(wire.code), after);
}
