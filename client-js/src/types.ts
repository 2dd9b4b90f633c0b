import type { ThroughlineError, WireError } from "./error.js";
import type { Frame } from "./wire.js";

/** The carriers, named as in `client.transports` and `state.transport`. */
export type Transport = "websocket" | "sse" | "poll";

/** A place in a channel's history. Opaque: store it, present it, compare it for equality only. */
export type Position = string;

/** What lay after `from` up to and including `to` won't come. */
export interface Gap {
  readonly from: Position;
  readonly to: Position;
  /** `trimmed`, `rewritten`, `skipped`, `withheld`, `unencodable`, or one that a later server invents. */
  readonly reason: string;
}

/** One event of a channel. */
export interface ChannelEvent<T = unknown> {
  readonly channel: string;
  /** `message` if it was published without one. */
  readonly type: string;
  /** JSON as published, a text as a string, binary as `Uint8Array`. */
  readonly data: T;
  readonly position: Position;
  /** What it is about, and its words, if the program gave it any. */
  readonly key?: string;
  readonly tags?: readonly string[];
  /** Present on the first event after a loss. Several gaps in a row are one. */
  readonly gap?: Gap;
}

/** What the connection is doing. */
export type State =
  /** Nothing was asked for yet. */
  | { readonly name: "idle" }
  /** A line is being opened, or is open and has not shown yet that it works. */
  | { readonly name: "connecting" }
  /** A line feeds the channels and has proved that it works. */
  | { readonly name: "online"; readonly transport: Transport }
  /** The next attempt comes at `retryAt` (milliseconds since 1970; `Infinity` while no transport is allowed). */
  | { readonly name: "waiting"; readonly retryAt: number; readonly reason: ThroughlineError }
  /** The server refused for good. `connect()` tries again. */
  | { readonly name: "failed"; readonly error: ThroughlineError }
  /** `close()` was called. */
  | { readonly name: "closed" };

/** Where a channel begins: only what is new, all there is, the last n events, since a time (milliseconds since 1970), or after a position. */
export type After = "latest" | "earliest" | `last=${number}` | `since=${number}` | (Position & {});

/** Which events are wanted: of each list that is not empty, an event must have at least one word. */
export interface Filter {
  /** `message` is the type of events that were published without one. */
  readonly types?: readonly string[];
  readonly tags?: readonly string[];
  readonly keys?: readonly string[];
}

export interface ChannelOptions {
  /** Where to begin. Default `latest`. */
  after?: After;
  /** Default: all events. Those who use one channel at a time share its filter: another one throws a `TypeError`. */
  filter?: Filter;
}

/** A part of a channel's past: what lies within all of the bounds. */
export interface HistoryOptions {
  /** Positions: the place before the first event, and the last event. */
  after?: Position;
  until?: Position;
  /** Times, or milliseconds since 1970: not before `since`, and before `before`. */
  since?: Date | number;
  before?: Date | number;
  /** The newest first. */
  backwards?: boolean;
  /** How many events at most. Default: all there are. */
  limit?: number;
  filter?: Filter;
  /** How many events are asked for at a time. Default 100. */
  page?: number;
  /** Tells of what is missing: what was trimmed, or lies before what may be read. It lies between the last event and the next one, which carries it, too, if one comes. */
  onGap?: (gap: Gap) => void;
  /** Tells that nothing more is there, and whether there were older events than what is kept. */
  onEnd?: (end: { readonly trimmed: boolean }) => void;
  /** Aborting it rejects the page that is asked for. */
  signal?: AbortSignal;
}

/** An event of the past. */
export interface HistoryEvent<T = unknown> extends ChannelEvent<T> {
  readonly time: Date;
  readonly key?: string;
  readonly tags: readonly string[];
}

export interface SignalOptions {
  /** Aborting it ends this use, quietly. */
  signal?: AbortSignal;
}

export interface SubscribeOptions extends SignalOptions {
  /** The channel ended (for example `forbidden`). Default: `console.error`. */
  onError?: (error: ThroughlineError) => void;
}

export interface PublishOptions {
  /** The event's type. Default `message`. */
  type?: string;
  /** Send a string as text instead of as JSON. */
  text?: boolean;
  /** Stops trying. A message under way may have been appended all the same. */
  signal?: AbortSignal;
}

export interface Published {
  /** Of the last message that was appended together with this one. */
  readonly position: Position;
  /** A repeat found the message already there. */
  readonly duplicate: boolean;
}

/** A handle on one channel. Every use of it (an iteration, a callback) gets every event from where it began, in order, or is told of a gap. */
export interface Channel<T = unknown> extends AsyncIterable<ChannelEvent<T>> {
  readonly name: string;
  /**
   * Up to here the application is done: with every event for which its loop asked for the next one, or its callback returned. Store it at any time
   * and present it as `after` on the next page: nothing is missed. A handle that was left and is used again goes on from here.
   */
  readonly position: Position | undefined;
  /** As `for await (const event of channel)`, with a signal. */
  events(options?: SignalOptions): AsyncIterableIterator<ChannelEvent<T>>;
  /** Calls back for each event until the returned function is called or the signal aborts. */
  subscribe(callback: (event: ChannelEvent<T>) => void, options?: SubscribeOptions): () => void;
  /** Tells of each gap at once. Without a listener a channel's first gap is warned about on the console. */
  onGap(callback: (gap: Gap) => void, options?: SignalOptions): () => void;
  /** Publishes once and in order with this client's other messages. Repeated until answered. */
  publish(data: unknown, options?: PublishOptions): Promise<Published>;
  /** What the channel holds, page by page, each asked for by a request of its own. Needs the right `history`; joins nothing, and moves no position. */
  history(options?: HistoryOptions): AsyncGenerator<HistoryEvent<T>, void, void>;
}

export interface Client {
  readonly state: State;
  /** Calls back at each change of `state`. */
  onState(callback: (state: State) => void, options?: SignalOptions): () => void;
  /** The transports allowed, best first. May be set at any time; the client moves at once. */
  transports: readonly Transport[];
  /** Connects without waiting for the first use of a channel; after `failed`, tries again. */
  connect(): void;
  /** A handle; no I/O. Handles of one name share one subscription on the wire. */
  channel<T = unknown>(name: string, options?: ChannelOptions): Channel<T>;
  /** For good: iterations end, publishes that wait are rejected. */
  close(): void;
  /** The door for the other entries of the same version. Not for applications: it changes without notice. */
  readonly internal: Internal;
}

/** What the entries beside the client need of it. They are other bundles, so these names are never shortened. */
export interface Internal {
  readonly env: Env;
  readonly timing: Timing;
  /** Says one frame and gives the one that answers. Rejects with the code `network` if nobody knows what became of it. */
  ask(frame: object, id: number, ms: number): Promise<Frame>;
  /** Makes a `ThroughlineError`. */
  failure(wire: WireError): ThroughlineError;
  /** Who asks for presence. */
  presence?: { list(): object[]; hear(frame: Frame): void };
  /** What it asks for has changed. */
  announce(): void;
  /** Who is to get fresh credentials (P6.22). */
  refresh?(): void;
  /** Goes on as a new line. */
  reopen(): void;
}

/** Takes part in what a client opens: see `bearer`. */
export type Auth = (internal: Internal) => void;

/** All in milliseconds. */
export interface Timing {
  /** A line must open within this, and prove itself within half of it after that. Default 10,000. */
  connect: number;
  /** A frame this long after `open` proves a line (P6.6). Default 100. */
  proof: number;
  /** Backoff: full jitter over `base` doubled at each attempt, up to `cap`. Defaults 500 and 30,000. */
  base: number;
  cap: number;
  /** The jitter of a return at once. Default 100. */
  prompt: number;
  /** Attempts count from one again after a line worked this long. Default 10,000. */
  stable: number;
  /** A line that dies sooner than this after `open` counts as a failure, whatever it brought; after three of them a probe has to live as long, and no probe lives for 10 s. Default 5,000. */
  settle: number;
  /** First contact: the second transport joins after max(`stagger`, 3 × the last round trip), each further one `join` later. Defaults 800 and 1,500. */
  stagger: number;
  join: number;
  /** A better transport that was passed over, or allowed again, is probed after this. Default 1,000. */
  soon: number;
  /** When a demoted transport is probed again; the last one repeats. Default 1, 5 and 15 minutes. */
  upward: readonly number[];
  /** How long a demotion is remembered in the storage. Default 30 minutes. */
  memory: number;
  /** When the network returns, attempts are spread over this. Default 1,000. */
  spread: number;
  /** The longest wait asked of a poll. Default 25,000. */
  wait: number;
  /** A batch of publishes that isn't answered within this is repeated. Default 30,000. */
  publish: number;
}

/** What the client needs of a WebSocket. Its events are those of the standard. */
export interface WebSocketLike {
  onopen: ((event: never) => unknown) | null;
  onmessage: ((event: never) => unknown) | null;
  onclose: ((event: never) => unknown) | null;
  onerror: ((event: never) => unknown) | null;
  send(data: string): void;
  close(code?: number): void;
}

/** What the client needs of a window, for `online`, `offline`, `pagehide`, `pageshow`, `resume` and `visibilitychange`. */
export interface Lifecycle {
  addEventListener(type: string, listener: (event: { persisted?: boolean }) => void): void;
  removeEventListener(type: string, listener: (event: { persisted?: boolean }) => void): void;
}

/** The surroundings. Each is the global of that name unless given; nothing is read before `connect`. */
export interface Env {
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
  WebSocket?: new (url: string) => WebSocketLike;
  /** Remembers demotions. Default `localStorage`, if there is one. */
  storage?: Pick<Storage, "getItem" | "setItem">;
  /** Wall time. */
  now: () => number;
  /** A time that nobody sets: milliseconds from any beginning. */
  steady: () => number;
  random: () => number;
  /** 16 random bytes or more: the producer's secret name. */
  secret: () => Uint8Array;
  setTimeout: (callback: () => void, ms: number) => unknown;
  clearTimeout: (timer: unknown) => void;
  /** Default `window`. */
  lifecycle?: Lifecycle;
  /** Default `navigator.connection`: a change of its `type` is a new network. */
  connection?: Lifecycle & { readonly type?: string };
  console: Pick<Console, "warn" | "error">;
  /** What a relative address is relative to. Default: the page. */
  base?: string;
}

export interface Options {
  /** The transports allowed, best first. Default `["websocket", "sse", "poll"]`. */
  transports?: readonly Transport[];
  /** Shows credentials that are no cookies: `bearer` of the entry `auth`. */
  auth?: Auth;
  /** Default `same-origin`. */
  credentials?: RequestCredentials;
  /** An iteration holds this many events at most. At the bound the channel is paused, and goes on from its position when half are read. Default 1,024. */
  buffer?: number;
  /** This many messages wait to be published at most; one more is refused with `busy`. Default 1,000. */
  outbox?: number;
  timing?: Partial<Timing>;
  env?: Partial<Env>;
}
