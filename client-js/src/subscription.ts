import type { ThroughlineError } from "./error.js";
import { decode } from "./payload.js";
import type { Frame } from "./wire.js";
import type { ChannelEvent, Env, Filter, Gap, Position } from "./types.js";

/** Whoever receives a channel: an iteration or a callback. */
export interface Sink {
  /** The handle it belongs to, which hears of gaps. */
  readonly hearers: ReadonlySet<(gap: Gap) => void>;
  /** What it has received, once that is known. */
  here?: Position;
  /** A gap its next event has to carry, and where the first begins that nobody was told of at once. */
  gap?: Gap;
  untold?: Position;
  /** It holds events that the application has not handled; then, up to where it has. */
  busy?: boolean;
  handled?: Position;
  take(event: ChannelEvent): void;
  /** The channel ended; without an error, quietly. */
  end(error?: ThroughlineError): void;
  /** Events received and not read yet. */
  waiting(): number;
}

/** Up to where the application is done with a channel: the position to store, and to go on from. */
export function settled(sink: Sink): Position | undefined {
  return sink.busy ? sink.handled : sink.untold ?? sink.here;
}

/** What a subscription needs of its client. */
export interface Host {
  /** The wanted channels may have changed: see to it at the end of this turn. */
  changed(): void;
  readonly console: Env["console"];
  /** Calls the application; what it throws doesn't stop the stream. */
  guard(call: () => void): void;
  readonly buffer: number;
}

/**
 * - `none`: not on the line.
 * - `asked`: on the line, and its answer is awaited: what comes before that is of a gift that our question crossed (P6.19).
 * - `on`: on the line, and read.
 * - `pause`, `leave`: on the line, and no longer read, which the line has not been told.
 * - `leaving`: told; its end is awaited (P6.10, P6.18).
 * - `paused`: the server holds it for us, and sends nothing.
 */
type OnWire = "none" | "asked" | "on" | "pause" | "leave" | "leaving" | "paused";

/** Where a channel begins, and what is wanted of it. */
export interface Beginning {
  readonly after: string;
  readonly filter?: Filter;
}

/** One channel on the wire, for all who receive it. */
export interface Subscription {
  readonly name: string;
  wire: OnWire;
  /** The server named it (P6.19): it stays, used or not. */
  gift: boolean;
  /** Told to come back later. */
  resting: boolean;
  /** An iteration holds as much as it may. */
  full: boolean;
  /** Attempts in a row to which the server answered "later". */
  attempt: number;
  /** Somebody has a use for it. */
  used(): boolean;
  /** It is to be on the line, and read. */
  wanted(): boolean;
  /** Where to go on, for a hello or a subscribe. */
  presented(): object;
  /** A thread begins or goes on: at the sink's place if nobody else is here, else with the others. Throws if it has another filter. */
  join(sink: Sink, from: Beginning): void;
  leave(sink: Sink): void;
  /** Takes a frame of this channel from the line that feeds. What comes while we don't read doesn't move the position, and so comes again. */
  take(frame: Frame): void;
  /** An iteration has read; if all have read enough: go on. */
  drained(): void;
  /** It ended for good; without an error, because the client was closed. */
  end(error?: ThroughlineError): void;
}

export function subscription(name: string, host: Host): Subscription {
  const sinks = new Set<Sink>();
  let start: Beginning | undefined;
  let position: Position | undefined;
  let warned = false;

  const self: Subscription = {
    name,
    wire: "none",
    gift: false,
    resting: false,
    full: false,
    attempt: 0,
    used: () => sinks.size > 0 || self.gift,
    wanted: () => self.used() && !self.full && !self.resting,
    presented: () => ({ channel: name, ...start, after: position ?? start?.after, paused: self.full || undefined }),
    join(sink, from) {
      if (!self.used()) {
        unread("leave");
        position = sink.here;
        start = from;
      } else if (JSON.stringify(start?.filter) !== JSON.stringify(from.filter)) throw new TypeError("another filter");
      sinks.add(sink);
      if (position) meet(sink, position);
      host.changed();
    },
    leave(sink) {
      if (!sinks.delete(sink)) return;
      if (!self.used()) unread("leave");
      self.drained();
      host.changed();
    },
    take(frame) {
      if (self.wire === "asked" && !frame.given && !frame.type) self.wire = "on";
      if (self.wire !== "on") return;
      self.attempt = 0;
      if (frame.gap) skip(frame.gap);
      else if (frame.type) deliver(frame);
      else if (frame.position) move(frame.position);
    },
    drained() {
      if (!self.full || [...sinks].some((sink) => sink.waiting() > host.buffer / 2)) return;
      self.full = false;
      host.changed();
    },
    end(error) {
      self.wire = "none";
      self.gift = self.full = false;
      const all = [...sinks];
      sinks.clear();
      all.forEach((sink) => sink.end(error));
      host.changed();
    },
  };
  return self;

  function unread(how: OnWire): void {
    if (self.wire !== "none" && self.wire !== "leaving") self.wire = how;
  }

  function move(to: Position): void {
    open(to);
    position = to;
    for (const sink of sinks) sink.here = to;
  }

  function deliver(frame: Frame): void {
    const { encoding, ...event } = { ...(frame as Frame & ChannelEvent), data: decode(frame) };
    for (const sink of sinks) if (!sink.busy) sink.handled = settled(sink);
    open(event.position);
    position = event.position;
    for (const sink of [...sinks]) {
      if (!sinks.has(sink)) continue; // it left while another one was called
      const { gap } = sink;
      sink.busy = true;
      sink.here = position;
      sink.gap = sink.untold = undefined;
      host.guard(() => sink.take(gap ? { ...event, gap } : event));
      if (sink.waiting() >= host.buffer) self.full = true;
    }
    if (!self.full) return;
    unread("pause");
    host.changed();
  }

  function skip(gap: Gap): void {
    open(gap.from);
    position = gap.to;
    tell([...sinks], gap);
  }

  /** The first thing heard of the channel. */
  function open(here: Position): void {
    if (!position) for (const sink of sinks) meet(sink, here);
  }

  /** A sink that left elsewhere than where the wire is: what lies between was not received by it. */
  function meet(sink: Sink, here: Position): void {
    if (sink.here && sink.here !== here) tell([sink], { from: sink.here, to: here, reason: "skipped" });
    sink.here = here;
  }

  function tell(those: Sink[], gap: Gap): void {
    const listeners = new Set<(gap: Gap) => void>();
    for (const sink of those) {
      sink.gap = { ...gap, from: sink.gap?.from ?? gap.from };
      if (!sink.hearers.size) sink.untold ??= gap.from;
      sink.here = gap.to;
      sink.hearers.forEach((listener) => listeners.add(listener));
    }
    if (!listeners.size && those.length && !warned) {
      warned = true;
      host.console.warn(`throughline: ${name} lost events: ${gap.reason}`, gap);
    }
    listeners.forEach((listener) => host.guard(() => listener(gap)));
  }
}
