import { backoff } from "./backoff.js";
import { channel, listen } from "./channel.js";
import { defaultTiming, surroundings } from "./env.js";
import { aborted, broken, fromWire, ThroughlineError } from "./error.js";
import { deadline, initial, reduce, view, type Effect, type PolicyEvent } from "./policy.js";
import { openPoll } from "./poll.js";
import { publisher } from "./publisher.js";
import { openSSE } from "./sse.js";
import { subscription, type Host, type Sink, type Subscription } from "./subscription.js";
import type { Channel, ChannelOptions, Client, Env, Gap, Options, State, Timing, Transport } from "./types.js";
import type { Carrier, Frame, Opener, Owner, Wire } from "./wire.js";
import { openWebSocket } from "./ws.js";

const openers: Record<Transport, Opener> = { websocket: openWebSocket, sse: openSSE, poll: openPoll };

/** A line as the client holds it. */
interface Running {
  readonly probe: boolean;
  carrier?: Carrier;
  /** The hello went out. */
  greeted: boolean;
  opened: boolean;
  /** When the policy last heard of it, and whether it knows of an event. */
  told: number;
  fed: boolean;
}

/** Without the `now` and `random` that every event of the policy gets here. */
type Bare<E> = E extends unknown ? Omit<E, "now" | "random"> : never;

/**
 * A client of the Throughline server mounted at `url`, which is relative to the page or absolute.
 * It connects at the first use of a channel.
 */
export function connect(url: string, options: Options = {}): Client {
  const env: Env = { ...surroundings(), ...options.env };
  const timing: Timing = { ...defaultTiming, ...options.timing };
  const running = new Map<number, Running>();
  const subscriptions = new Map<string, Subscription>();
  const watchers = new Set<(state: State) => void>();
  const warned = new Set<string>();
  const events: PolicyEvent[] = [];
  let allowed = options.transports ?? (["websocket", "sse", "poll"] as const);
  let policy = initial(usable());
  let shown: State = view(policy);
  let timer: unknown;
  let pending = false;
  let address: Wire | undefined;

  // Surroundings

  function wire(): Wire {
    return (address ??= {
      base: new URL(url, env.base).href.replace(/\/+$/, ""),
      env,
      timing,
      credentials: options.credentials ?? "same-origin",
    });
  }

  function usable(): Transport[] {
    return allowed.filter((name) => (name === "websocket" ? env.WebSocket : env.fetch));
  }

  /** Whether a carrier is remembered as demoted; `demoted` makes it so or not. A storage that is blocked or full remembers nothing. */
  function memory(name: Transport, demoted?: boolean): boolean | void {
    try {
      const key = `throughline ${name} ${wire().base}`;
      if (demoted === undefined) return Number(env.storage?.getItem(key)) > env.now();
      env.storage?.setItem(key, String(demoted ? env.now() + timing.memory : 0));
    } catch {
      // see above
    }
  }

  function guard(call: () => void): void {
    try {
      call();
    } catch (cause) {
      report("a callback threw", cause);
    }
  }

  const report = (message: string, cause: unknown): void => env.console.error("throughline:", message, cause);

  // The policy and its effects

  function dispatch(event: Bare<PolicyEvent>): void {
    events.push({ ...event, now: env.now(), random: env.random() } as PolicyEvent);
    if (events.length > 1) return; // whoever is at work takes it
    for (; events[0]; events.shift()) {
      const [next, effects] = reduce(policy, events[0], timing);
      policy = next;
      effects.forEach(perform);
    }
    schedule();
    show();
  }

  function perform(effect: Effect): void {
    if (effect.type === "open") return open(effect.line, effect.transport, effect.probe, effect.over);
    if (effect.type === "remember") return void memory(effect.transport, effect.demoted);
    running.get(effect.line)?.carrier?.close();
    running.delete(effect.line);
  }

  function schedule(): void {
    env.clearTimeout(timer);
    const due = deadline(policy);
    if (due < Infinity) timer = env.setTimeout(() => dispatch({ type: "tick" }), Math.min(Math.max(0, due - env.now()), 2 ** 31 - 1));
  }

  function show(): void {
    const state = view(policy);
    if (JSON.stringify(state) === JSON.stringify(shown)) return;
    shown = state;
    if (state.name === "failed") endAll(state.error);
    [...watchers].forEach((watcher) => guard(() => watcher(state)));
  }

  // Lines

  function open(id: number, transport: Transport, probe: boolean, over?: number): void {
    /** Of a line that was left nothing is heard. */
    const current = (): boolean => running.get(id) === line;
    const owner: Owner = {
      hello: () => JSON.stringify({ hello: hello(id, line) }),
      frame: (frame) => current() && receive(id, line, frame),
      end: (error, spoken) => current() && dispatch({ type: "end", line: id, error, spoken }),
    };
    const line: Running = { probe, greeted: false, opened: false, told: 0, fed: false };
    const way = running.get(over!);
    running.delete(over!);
    running.set(id, line);
    if (way?.carrier?.adopt) {
      line.carrier = way.carrier;
      way.carrier.adopt(owner);
      return;
    }
    way?.carrier?.close();
    try {
      line.carrier = openers[transport](wire(), owner);
    } catch (cause) {
      owner.end(broken(String(cause)), false);
    }
  }

  function hello(id: number, line: Running): object {
    line.greeted = true;
    if (line.probe) return { version: 1, line: id, probe: true };
    const wanted = [...subscriptions.values()].filter((one) => {
      one.wire = one.wanted() ? "on" : "none";
      if (!one.sinks.size) subscriptions.delete(one.name);
      return one.wanted();
    });
    return { version: 1, line: id, channels: wanted.map((one) => one.presented()) };
  }

  function receive(id: number, line: Running, frame: Frame): void {
    if (!line.opened) {
      // After a second hello (P6.8) the probe's frames may still be under way.
      if (frame.open?.line !== id) return;
      line.opened = true;
      line.told = env.now();
      dispatch({ type: "open", line: id, heartbeat: frame.open.heartbeat });
    } else if (frame.close) {
      dispatch({ type: "end", line: id, error: fromWire(frame.close), spoken: true });
    } else {
      if (frame.channel && !line.probe) deliver(frame.channel, frame);
      heard(id, line, !!frame.type);
    }
  }

  /** The policy needs the first event, and to hear now and then. */
  function heard(id: number, line: Running, event: boolean): void {
    const now = env.now();
    const first = event && !line.fed;
    if (!first && now - line.told < timing.proof) return;
    line.told = now;
    if (event) line.fed = true;
    dispatch({ type: "heard", line: id, event });
  }

  // Channels

  const host: Host = { changed, unheard, guard, buffer: Math.max(1, options.buffer ?? 1024) };

  function deliver(name: string, frame: Frame): void {
    const one = subscriptions.get(name);
    if (!one) return;
    if (!frame.end) return one.take(frame);
    const error = fromWire(frame.end);
    if (one.wire === "leaving") return one.rest(false);
    if (one.wire === "none" || error.code === "unsubscribed") return; // the late echo of a channel that ended as we left it
    if (error.class === "never") return one.end(error);
    one.rest(true);
    env.setTimeout(() => one.rest(false), (error.after ?? 0) + backoff(++one.attempt, env.random(), timing));
  }

  /** The changes of one turn of the page are one change. */
  function changed(): void {
    if (pending) return;
    pending = true;
    void Promise.resolve().then(() => {
      pending = false;
      settle();
    });
  }

  /** Brings the line that feeds to the channels wanted. */
  function settle(): void {
    for (const one of subscriptions.values()) if (!one.sinks.size && one.wire === "none") subscriptions.delete(one.name);
    const line = policy.feed && running.get(policy.feed.id);
    if (!line?.greeted) return; // its hello will name them
    const all = [...subscriptions.values()];
    const leave = all.filter((one) => one.wire === "leave" || (one.wire === "on" && !one.wanted()));
    const join = all.filter((one) => one.wire === "none" && one.wanted());
    if (!leave.length && !join.length) return;
    if (!line.carrier?.send) return dispatch({ type: "renew" });
    for (const one of leave) one.wire = "leaving";
    for (const one of join) one.wire = "on";
    if (leave.length) line.carrier.send({ unsubscribe: leave.map((one) => one.name) });
    if (join.length) line.carrier.send({ subscribe: join.map((one) => one.presented()) });
  }

  function join(name: string, sink: Sink, after: string): Subscription | undefined {
    if (policy.phase === "closed") return void sink.end();
    start();
    const one = subscriptions.get(name) ?? subscription(name, host);
    subscriptions.set(name, one);
    one.join(sink, after);
    return one;
  }

  function unheard(name: string, gap: Gap): void {
    if (warned.has(name)) return;
    warned.add(name);
    env.console.warn(`throughline: events of ${name} are lost (${gap.reason}) and no onGap listens`, gap);
  }

  function endAll(error?: ThroughlineError): void {
    for (const one of [...subscriptions.values()]) one.end(error);
  }

  // The page

  type Happening = "network" | "offline" | "sleep" | "wake" | "tick";
  const on = (type: Happening) => () => dispatch({ type });
  const pageEvents: Record<string, () => void> = {
    online: on("network"),
    offline: on("offline"),
    pagehide: on("sleep"),
    pageshow: on("wake"),
    // Timers of a page that slept or was hidden come late.
    visibilitychange: on("tick"),
    resume: on("tick"),
  };
  let network = env.connection?.type;
  function onConnection(): void {
    const type = env.connection?.type;
    if (type !== network) dispatch({ type: "network" });
    network = type;
  }

  function attend(how: "addEventListener" | "removeEventListener"): void {
    for (const type in pageEvents) env.lifecycle?.[how](type, pageEvents[type]!);
    env.connection?.[how]?.("change", onConnection);
  }

  // What the application calls

  function start(): void {
    if (policy.phase === "idle") attend("addEventListener");
    if (policy.phase === "idle" || policy.phase === "failed") dispatch({ type: "start", demoted: allowed.filter((name) => memory(name)) });
  }

  const publishing = publisher(wire);
  const home = { join, publish: publishing.publish, guard, report };

  return {
    get state() {
      return shown;
    },
    onState: (callback, o) => listen(watchers, callback, o),
    get transports() {
      return allowed;
    },
    set transports(names) {
      allowed = [...names];
      dispatch({ type: "allow", transports: usable() });
    },
    connect: start,
    channel: <T>(name: string, o: ChannelOptions = {}): Channel<T> => channel<T>(home, name, o.after ?? "latest"),
    close() {
      if (policy.phase === "closed") return;
      attend("removeEventListener");
      dispatch({ type: "close" });
      publishing.close();
      endAll();
    },
  };
}
