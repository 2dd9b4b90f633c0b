import { ThroughlineError } from "./error.js";
import type { Outbox } from "./outbox.js";
import { onAbort } from "./signal.js";
import { settled, type Beginning, type Host, type Sink, type Subscription } from "./subscription.js";
import type { Channel, ChannelEvent, Gap, HistoryEvent, HistoryOptions, Position, SignalOptions } from "./types.js";

/** What a handle needs of its client. */
export interface Home extends Pick<Host, "guard"> {
  /** Puts a sink on the channel of this name, connecting if need be. */
  join(name: string, sink: Sink, from: Beginning): Subscription | undefined;
  /** Asks something below the server's address. */
  past(path: string, init: RequestInit): Promise<Response>;
  publish: Outbox["publish"];
  report(message: string, cause: unknown): void;
}

/** A handle: the thread of one user of a channel, across all its uses. */
export function channel<T>(home: Home, name: string, from: Beginning): Channel<T> {
  const gaps = new Set<(gap: Gap) => void>();
  /** What receives now. */
  const uses = new Set<Sink>();
  let place = /^(latest|earliest|last=|since=)/.test(from.after) ? undefined : from.after;

  /** Was told at once, and is still to be carried by an event. */
  let lost: Gap | undefined;

  /** Puts a sink in place. What comes back takes it away, and notes how far the application is: what waits in the sink comes again. */
  function use(sink: Sink): [leave: () => void, drained: () => void] {
    sink.here = [...uses][0]?.here ?? place;
    sink.gap = lost;
    const subscription = home.join(name, sink, from);
    lost = undefined;
    uses.add(sink);
    return [
      () => {
        if (!uses.delete(sink)) return;
        place = settled(sink);
        if (place === sink.here) lost = sink.gap;
        subscription?.leave(sink);
      },
      () => subscription?.drained(),
    ];
  }

  function events({ signal }: SignalOptions = {}): AsyncIterableIterator<ChannelEvent<T>> {
    type Result = IteratorResult<ChannelEvent<T>, undefined>;
    const buffer: ChannelEvent<T>[] = [];
    /** Who waits for an event, and how many those are: at once there may be an event for each. */
    let wake: (() => void)[] = [];
    let hungry = 0;
    let state: undefined | "open" | "ended";
    let failure: ThroughlineError | undefined;
    let leave: (() => void) | undefined;
    let drained: (() => void) | undefined;
    let forget: (() => void) | undefined;
    /** The position of the event in the application's hands. */
    let given: Position | undefined;
    const end: Result = { done: true, value: undefined };

    const sink: Sink = {
      hearers: gaps,
      take: (event) => {
        buffer.push(event as ChannelEvent<T>);
        stir();
      },
      end: (error) => {
        state = "ended";
        failure = error;
        stir();
      },
      waiting: () => buffer.length - hungry,
    };

    function stir(): void {
      wake.forEach((done) => done());
      wake = [];
    }

    function start(): void {
      state = "open";
      [leave, drained] = use(sink);
      forget = onAbort(signal, stop);
    }

    /** Who asks for the next event, or leaves, is done with the one before. */
    function settle(): void {
      sink.handled = given ?? sink.handled;
      given = undefined;
      sink.busy = buffer.length > 0;
    }

    function stop(): void {
      state = "ended";
      settle();
      leave?.();
      buffer.length = 0;
      failure = undefined;
      forget?.();
      stir();
    }

    return {
      async next() {
        if (!state) start();
        settle();
        hungry++;
        while (!buffer.length && state === "open") await new Promise<void>((done) => wake.push(done));
        hungry--;
        const value = buffer.shift();
        if (value) {
          given = value.position;
          drained!();
          return { done: false, value };
        }
        const error = failure;
        stop();
        if (error) throw error;
        return end;
      },
      async return() {
        stop();
        return end;
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  return {
    name,
    get position() {
      const [first] = uses;
      return first ? settled(first) : place;
    },
    events,
    [Symbol.asyncIterator]: () => events(),
    subscribe(callback, { signal, onError } = {}) {
      if (signal?.aborted) return () => {};
      const stop = (): void => {
        sink.busy = false;
        leave();
        forget();
      };
      const sink: Sink = {
        hearers: gaps,
        take: (event) => {
          try {
            callback(event as ChannelEvent<T>);
          } finally {
            sink.busy = false;
          }
        },
        end: (error) => {
          stop();
          if (error) home.guard(() => (onError ? onError(error) : home.report(`${name} ended`, error)));
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
    async *history(options) {
      yield* (await import("./history.js")).history<T>(home.past, name, options);
    },
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
