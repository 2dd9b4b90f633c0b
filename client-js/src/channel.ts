import { ThroughlineError } from "./error.js";
import type { Publisher } from "./publisher.js";
import { onAbort } from "./signal.js";
import type { Sink, Subscription } from "./subscription.js";
import type { Channel, ChannelEvent, Gap, Position, SignalOptions } from "./types.js";

/** What a handle needs of its client. */
export interface Home {
  /** Puts a sink on the channel of this name, connecting if need be. */
  join(name: string, sink: Sink, after: string): Subscription | undefined;
  publish: Publisher["publish"];
  guard(call: () => void): void;
  report(message: string, cause: unknown): void;
}

/** A handle: the thread of one user of a channel, across all its uses. */
export function channel<T>(home: Home, name: string, after: string): Channel<T> {
  const gaps = new Set<(gap: Gap) => void>();
  /** What receives now, and where each would go on: at what the application was given last. */
  const uses = new Map<Sink, () => Position | undefined>();
  let place = /^(latest|earliest|last=)/.test(after) ? undefined : (after as Position);

  /** Puts a sink in place. What comes back takes it away, and notes where it had got to. */
  function use(sink: Sink, unread?: () => Position | undefined): [leave: () => void, drained: () => void] {
    sink.at = [...uses.keys()][0]?.at ?? place;
    // What was not passed on yet, an event or a gap, is not behind us: it comes again.
    const got = (): Position | undefined => unread?.() ?? sink.gap?.from ?? sink.at ?? place;
    uses.set(sink, got);
    const subscription = home.join(name, sink, after);
    return [
      () => {
        if (!uses.delete(sink)) return;
        place = got();
        subscription?.leave(sink);
      },
      () => subscription?.drained(),
    ];
  }

  function events({ signal }: SignalOptions = {}): AsyncIterableIterator<ChannelEvent<T>> {
    type Result = IteratorResult<ChannelEvent<T>, undefined>;
    const buffer: ChannelEvent<T>[] = [];
    const readers: { resolve(result: Result): void; reject(error: ThroughlineError): void }[] = [];
    let state: "new" | "open" | "ended" = "new";
    let failure: ThroughlineError | undefined;
    let leave = (): void => {};
    let drained = (): void => {};
    let forget = (): void => {};
    let last: Position | undefined;
    const end: Result = { done: true, value: undefined };

    const sink: Sink = {
      gaps,
      take: (event) => {
        const reader = readers.shift();
        if (!reader) return void buffer.push(event as ChannelEvent<T>);
        last = event.position;
        reader.resolve({ done: false, value: event as ChannelEvent<T> });
      },
      end: (error) => {
        state = "ended";
        const first = error && readers.shift();
        if (first) first.reject(error);
        else failure = error;
        readers.splice(0).forEach((reader) => reader.resolve(end));
        if (!buffer.length) leave();
      },
      waiting: () => buffer.length,
    };

    function start(): void {
      state = "open";
      [leave, drained] = use(sink, () => (buffer.length ? last : undefined));
      forget = onAbort(signal, stop);
    }

    function stop(): void {
      state = "ended";
      leave();
      buffer.length = 0;
      failure = undefined;
      forget();
      readers.splice(0).forEach((reader) => reader.resolve(end));
    }

    return {
      next() {
        if (state === "new") start();
        const event = buffer.shift();
        if (event) {
          last = event.position;
          drained();
          return Promise.resolve({ done: false, value: event });
        }
        if (state === "open") return new Promise((resolve, reject) => readers.push({ resolve, reject }));
        const error = failure;
        stop();
        return error ? Promise.reject(error) : Promise.resolve(end);
      },
      return() {
        stop();
        return Promise.resolve(end);
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  return {
    name,
    get position() {
      for (const got of uses.values()) return got();
      return place;
    },
    events,
    [Symbol.asyncIterator]: () => events(),
    subscribe(callback, { signal, onError } = {}) {
      if (signal?.aborted) return () => {};
      const stop = (): void => {
        leave();
        forget();
      };
      const sink: Sink = {
        gaps,
        take: (event) => callback(event as ChannelEvent<T>),
        end: (error) => {
          stop();
          if (error) home.guard(() => (onError ? onError(error) : home.report(`the channel ${name} ended`, error)));
        },
        waiting: () => 0,
      };
      let forget = (): void => {};
      const [leave] = use(sink);
      forget = onAbort(signal, stop);
      return stop;
    },
    onGap: (callback, options) => listen(gaps, callback, options),
    publish: (data, options) => home.publish(name, data, options),
  };
}

/** Adds a listener until the function returned is called or the signal aborts. */
export function listen<L>(listeners: Set<L>, listener: L, { signal }: SignalOptions = {}): () => void {
  listeners.add(listener);
  const remove = (): boolean => listeners.delete(listener);
  const forget = onAbort(signal, remove);
  return () => {
    remove();
    forget();
  };
}
