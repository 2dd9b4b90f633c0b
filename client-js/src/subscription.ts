import type { ThroughlineError } from "./error.js";
import type { Frame } from "./wire.js";
import type { ChannelEvent, Gap, Position } from "./types.js";

/** Whoever receives a channel: an iteration or a callback. */
export interface Sink {
  /** The handle it belongs to, which hears of gaps. */
  readonly gaps: ReadonlySet<(gap: Gap) => void>;
  /** Where it is in the channel, once it is known. */
  at?: Position;
  /** A gap its next event has to carry. */
  gap?: Gap;
  take(event: ChannelEvent): void;
  /** The channel ended; without an error, quietly. */
  end(error?: ThroughlineError): void;
  /** Events received and not read yet. */
  waiting(): number;
}

/** What a subscription needs of its client. */
export interface Host {
  /** The wanted channels may have changed: see to it at the end of this turn. */
  changed(): void;
  /** A gap nobody listens for. */
  unheard(channel: string, gap: Gap): void;
  /** Calls the application; what it throws doesn't stop the stream. */
  guard(call: () => void): void;
  readonly buffer: number;
}

/**
 * - `none`: not on the line.
 * - `on`: on the line, and read.
 * - `leave`: on the line, and no longer read, which the line has not been told.
 * - `leaving`: told; its end is awaited (P6.10).
 */
type OnWire = "none" | "on" | "leave" | "leaving";

/** One channel on the wire, for all who receive it. */
export interface Subscription {
  readonly name: string;
  wire: OnWire;
  readonly sinks: ReadonlySet<Sink>;
  /** Attempts in a row to which the server answered "later". */
  attempt: number;
  /** It is to be on the line. */
  wanted(): boolean;
  /** Where to go on, for a hello or a subscribe. */
  presented(): { channel: string; after: string };
  /** A thread begins or goes on: at the sink's place if nobody else is here, else with the others. */
  join(sink: Sink, after: string): void;
  leave(sink: Sink): void;
  /** Takes a frame of this channel from the line that feeds. What comes while we don't read doesn't move the position, and so comes again. */
  take(frame: Frame): void;
  /** An iteration has read; if all have read enough: go on. */
  drained(): void;
  /** It is off the line; `resting`: the server told it to come back later. */
  rest(resting: boolean): void;
  /** It ended for good; without an error, because the client was closed. */
  end(error?: ThroughlineError): void;
}

export function subscription(name: string, host: Host): Subscription {
  const sinks = new Set<Sink>();
  let start = "";
  let position: Position | undefined;
  /** An iteration holds as much as it may. */
  let full = false;
  let paused = false;

  const self: Subscription = {
    name,
    wire: "none",
    sinks,
    attempt: 0,
    wanted: () => sinks.size > 0 && !full && !paused,
    presented: () => ({ channel: name, after: position ?? start }),
    join(sink, after) {
      if (!sinks.size) {
        unread();
        position = sink.at;
        start = after;
      }
      sinks.add(sink);
      if (position) meet(sink, position);
      host.changed();
    },
    leave(sink) {
      if (!sinks.delete(sink)) return;
      if (!sinks.size) unread();
      self.drained();
      host.changed();
    },
    take(frame) {
      if (self.wire !== "on") return;
      self.attempt = 0;
      if (frame.gap) skip(frame.gap);
      else if (frame.type) deliver(frame);
      else move(frame.position!);
    },
    drained() {
      if (!full || [...sinks].some((sink) => sink.waiting() > host.buffer / 2)) return;
      full = false;
      host.changed();
    },
    rest(resting) {
      self.wire = "none";
      paused = resting;
      host.changed();
    },
    end(error) {
      self.wire = "none";
      const all = [...sinks];
      sinks.clear();
      all.forEach((sink) => sink.end(error));
      host.changed();
    },
  };
  return self;

  function unread(): void {
    if (self.wire === "on") self.wire = "leave";
  }

  function move(to: Position): void {
    open(to);
    position = to;
    for (const sink of sinks) sink.at = to;
  }

  function deliver(frame: Frame): void {
    const event = { channel: name, type: frame.type!, data: payload(frame), position: frame.position! };
    move(event.position);
    for (const sink of [...sinks]) {
      if (!sinks.has(sink)) continue;
      const { gap } = sink;
      sink.gap = undefined;
      host.guard(() => sink.take(gap ? { ...event, gap } : event));
      if (sink.waiting() >= host.buffer) full = true;
    }
    if (!full) return;
    unread();
    host.changed();
  }

  function skip({ from, to, reason }: Gap): void {
    open(from);
    tell([...sinks], { from, to, reason });
    move(to);
  }

  /** The first thing heard of the channel. */
  function open(here: Position): void {
    if (!position) for (const sink of sinks) meet(sink, here);
  }

  /** A sink that left elsewhere than where the wire is: what lies between was not received by it. */
  function meet(sink: Sink, here: Position): void {
    if (sink.at && sink.at !== here) tell([sink], { from: sink.at, to: here, reason: "skipped" });
    sink.at = here;
  }

  function tell(those: Sink[], gap: Gap): void {
    const listeners = new Set<(gap: Gap) => void>();
    for (const sink of those) {
      sink.gap = { ...gap, from: sink.gap?.from ?? gap.from };
      sink.at = gap.to;
      sink.gaps.forEach((listener) => listeners.add(listener));
    }
    if (!listeners.size && those.length) host.unheard(name, gap);
    listeners.forEach((listener) => host.guard(() => listener(gap)));
  }
}

function payload({ data, encoding }: Frame): unknown {
  return encoding === "base64" ? Uint8Array.from(atob(data as string), (char) => char.charCodeAt(0)) : data;
}
