import { backoff } from "./backoff.js";
import { channel, listen, type Home } from "./channel.js";
import { defaultTiming, surroundings } from "./env.js";
import { asError, broken, fromWire, type ThroughlineError } from "./error.js";
import { ALL, policy as newPolicy } from "./policy.js";
import { outbox } from "./outbox.js";
import { openPoll } from "./poll.js";
import { openSSE } from "./sse.js";
import { subscription, type Beginning, type Host, type Sink, type Subscription } from "./subscription.js";
import type { Channel, ChannelOptions, Client, Env, Internal, Options, State, Timing, Transport } from "./types.js";
import { post, type Carrier, type Frame, type Opener, type Owner, type Session, type Wire } from "./wire.js";
import { openWebSocket } from "./ws.js";

const openers: Record<Transport, Opener> = { websocket: openWebSocket, sse: openSSE, poll: openPoll };

/** A line as the client holds it. */
interface Running {
  readonly probe: boolean;
  carrier?: Carrier;
  /** The hello went out. */
  greeted: boolean;
  opened: boolean;
  /** When the policy last heard of it. */
  told: number;
  /** What was said on it and awaits an answer: calls by their ids, the batch of publishes as 0. */
  readonly awaited: Map<number, (answer?: Frame) => void>;
}

/** The address of the server, absolute and without a slash at its end. Throws if it can't be one. */
function address(url: string, base?: string): string {
  const { href, search } = new URL(url, base);
  if (search) throw new TypeError(`${url} has a query`);
  return href.replace(/\/+$/, "");
}

function known(names: readonly Transport[]): Transport[] {
  for (const name of names) if (!openers[name]) throw new TypeError(`no transport: ${name}`);
  return [...names];
}

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
  const happenings: (() => void)[] = [];
  let allowed = known(options.transports ?? ALL);
  const wire: Wire = { base: address(url, env.base), env, timing, credentials: options.credentials ?? "same-origin" };
  const policy = newPolicy(usable(), timing, { open, close, remember: memory });
  let shown = policy.view();
  let timer: unknown;
  let pending = false;
  /** Others are asked about than the line was told (P10.1). */
  let news = false;
  const session: Session = { token: "", remembered: 300_000, limit: 65_536 };
  /** Gives up what awaits an answer, each. */
  const asking = new Set<() => void>();

  // Surroundings

  function usable(): Transport[] {
    return allowed.filter((name) => (name === "websocket" ? env.WebSocket : env.fetch));
  }

  /** Whether a carrier is remembered as demoted; `demoted` makes it so or not. A storage that is blocked or full remembers nothing. */
  function memory(name: Transport, demoted?: boolean): boolean | void {
    try {
      const key = `throughline ${name} ${wire.base}`;
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

  /** Tells the policy that something happened. */
  function happen(what: () => void): void {
    happenings.push(what);
    if (happenings.length > 1) return; // whoever is at work takes it
    for (; happenings[0]; happenings.shift()) {
      policy.moment(env.now(), env.random());
      happenings[0]();
    }
    schedule();
    show();
  }

  function close(id: number): void {
    forget(id)?.carrier?.close();
  }

  /** Of a line that was left nothing is heard, also no answers. */
  function forget(id?: number): Running | undefined {
    const line = running.get(id!);
    running.delete(id!);
    line?.awaited.forEach((answer) => answer());
    return line;
  }

  function schedule(): void {
    env.clearTimeout(timer);
    const due = policy.deadline();
    if (due < Infinity) timer = env.setTimeout(() => happen(policy.tick), Math.min(due - env.now(), 2 ** 31 - 1));
  }

  function show(): void {
    const state = policy.view();
    if (JSON.stringify(state) === JSON.stringify(shown)) return;
    shown = state;
    if (state.name === "failed") endAll(state.error);
    [...watchers].forEach((watcher) => guard(() => watcher(state)));
  }

  // Lines

  function open(id: number, transport: Transport, probe: boolean, over?: number): void {
    const current = (): boolean => running.get(id) === line;
    const owner: Owner = {
      hello: () => JSON.stringify({ hello: hello(id, line) }),
      frame: (frame) => current() && receive(id, line, frame),
      end: (error) => current() && ended(id, error),
    };
    const line: Running = { probe, greeted: false, opened: false, told: 0, awaited: new Map() };
    const way = forget(over);
    running.set(id, line);
    if (way?.carrier?.adopt) {
      line.carrier = way.carrier;
      way.carrier.adopt(owner);
      return;
    }
    way?.carrier?.close();
    try {
      line.carrier = openers[transport](wire, owner);
    } catch (cause) {
      owner.end(asError(cause));
    }
  }

  function ended(id: number, error: ThroughlineError): void {
    if (error.code === "superseded") session.token = ""; // somebody else uses it (P6.17)
    happen(() => policy.end(id, error));
  }

  function hello(id: number, line: Running): object {
    line.greeted = true;
    if (line.probe) return { version: 1, line: id, probe: true };
    news = false;
    const channels: object[] = [];
    for (const one of subscriptions.values()) {
      one.wire = one.wanted() ? "on" : !one.used() || one.resting ? "none" : line.carrier?.send ? "leaving" : "paused";
      if (!one.used()) subscriptions.delete(one.name);
      else if (one.wire !== "none") channels.push(one.presented());
    }
    return { version: 1, token: session.token, line: id, channels, presence: internal.presence?.list() };
  }

  function receive(id: number, line: Running, frame: Frame): void {
    const { open } = frame;
    if (frame.close) return ended(id, fromWire(frame.close));
    // After a second hello (P6.8) the probe's frames may still be under way.
    if (!line.opened && open?.line !== id) return;
    Object.assign(session, open);
    if (!line.opened) {
      line.opened = true;
      line.told = env.now();
      return happen(() => policy.open(id, open!.heartbeat));
    }
    if (frame.refresh) internal.refresh?.();
    const answered = frame.published ? 0 : frame.answer?.id;
    line.awaited.get(answered!)?.(frame);
    line.awaited.delete(answered!);
    if (frame.presence) guard(() => internal.presence?.hear(frame));
    else if (frame.channel && !line.probe) deliver(frame.channel, frame);
    heard(id, line);
  }

  /** The policy needs to hear now and then. */
  function heard(id: number, line: Running): void {
    const now = env.now();
    if (now - line.told < timing.proof) return;
    line.told = now;
    happen(() => policy.heard(id));
  }

  // Channels

  const host: Host & Pick<Home, "join" | "report"> = { join, report, changed, guard, console: env.console, buffer: Math.max(1, options.buffer ?? 1024) };

  function deliver(name: string, frame: Frame): void {
    let one = subscriptions.get(name);
    if (!one && frame.position && !frame.type) {
      // P6.19: the server gave it.
      subscriptions.set(name, (one = subscription(name, host)));
      one.wire = "on";
      one.gift = true;
    }
    if (!one || !frame.end) return one?.take(frame);
    if (one.wire === "none") return;
    const error = fromWire(frame.end);
    if (error.code === "paused" || error.code === "unsubscribed") {
      one.wire = error.code === "unsubscribed" ? "none" : one.used() ? "paused" : "leave";
      return changed();
    }
    if (error.class === "never") {
      subscriptions.delete(name); // it may be given, or wanted, again at once
      return one.end(error);
    }
    one.wire = "none";
    one.resting = true;
    env.setTimeout(() => {
      one!.resting = false;
      changed();
    }, (error.after ?? 0) + backoff(++one.attempt, env.random(), timing));
    changed();
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

  /** The line that feeds. */
  const feeding = (): Running | undefined => running.get(policy.feed()!);

  /** Brings the line that feeds to the channels wanted. */
  function settle(): void {
    const feed = feeding();
    const line = feed?.greeted ? feed : undefined; // else its hello will name them
    const say: Record<string, unknown[]> = {};
    for (const one of subscriptions.values()) {
      const { wire } = one;
      if (!one.used() && wire === "none") subscriptions.delete(one.name);
      if (!line) continue;
      if (wire === "pause" || wire === "leave") {
        (say[wire === "pause" ? wire : "unsubscribe"] ??= []).push(one.name);
        one.wire = "leaving";
      } else if (one.wanted() && (wire === "none" || wire === "paused")) {
        (say.subscribe ??= []).push(one.presented());
        one.wire = "asked";
      }
    }
    if (line && news) say.presence = internal.presence!.list();
    for (const verb in say) {
      if (!line!.carrier?.send) return happen(policy.renew);
      line!.carrier.send({ [verb]: say[verb] });
    }
    if (line) news = false;
  }

  function join(name: string, sink: Sink, from: Beginning): Subscription | undefined {
    if (shown.name === "closed") return void sink.end();
    start();
    const one = subscriptions.get(name) ?? subscription(name, host);
    subscriptions.set(name, one);
    one.join(sink, from);
    return one;
  }

  function endAll(error?: ThroughlineError): void {
    for (const one of [...subscriptions.values()]) one.end(error);
  }

  // Upstream

  /** The WebSocket that feeds, if it is open. */
  function speaking(): Running | undefined {
    const line = feeding();
    return line?.opened && line.carrier?.send ? line : undefined;
  }

  function up(frame: object, more: RequestInit): Promise<Response> {
    return post(wire, "/up", JSON.stringify({ up: { version: 1, token: session.token }, ...frame }), more);
  }

  /** Says one frame and gives the one that answers (P9.1). Rejects with the code `network` if nobody knows what became of it. */
  async function ask(frame: object, id: number, ms: number): Promise<Frame> {
    const control = new AbortController();
    const lost = (): void => control.abort();
    asking.add(lost);
    const timer = env.setTimeout(lost, Math.min(ms, 2 ** 31 - 1)); // a longer one would fire at once
    try {
      return await new Promise<Frame>((resolve, reject) => {
        control.signal.onabort = () => reject(broken("no answer"));
        const line = speaking();
        // Who has not answered the last batch yet is not given another (P9.3).
        if (line && !line.awaited.has(id) && new Blob([JSON.stringify(frame)]).size <= session.limit) {
          line.awaited.set(id, (answer) => (answer ? resolve(answer) : lost()));
          line.carrier!.send!(frame);
        } else {
          up(frame, { signal: control.signal })
            .then((response) => response.json())
            .then(resolve, (cause) => reject(asError(cause)));
        }
      });
    } finally {
      asking.delete(lost);
      env.clearTimeout(timer);
    }
  }

  /** P6.20: this session is over. */
  function goodbye(): void {
    const line = speaking();
    if (line) line.carrier!.send!({ close: {} });
    else if (session.token) up({ close: { line: policy.feed() ?? policy.last() } }, { keepalive: true }).catch(() => {});
    session.token = "";
  }

  // The page

  const on = (what: () => void) => () => happen(what);
  const pageEvents: Record<string, (event: { persisted?: boolean }) => void> = {
    online: on(policy.network),
    offline: on(policy.suspected),
    pagehide: (event) => {
      if (!event.persisted) goodbye();
      happen(policy.sleep);
    },
    pageshow: on(policy.wake),
    // Timers of a page that slept or was hidden come late.
    visibilitychange: on(policy.tick),
    resume: on(policy.tick),
  };
  let network = env.connection?.type;
  function onConnection(): void {
    const type = env.connection?.type;
    if (type !== network) happen(policy.network);
    network = type;
  }

  function attend(how: "addEventListener" | "removeEventListener"): void {
    for (const type in pageEvents) env.lifecycle?.[how](type, pageEvents[type]!);
    env.connection?.[how]?.("change", onConnection);
  }

  // What the application calls

  function start(): void {
    const { name } = shown;
    if (name !== "idle" && name !== "failed") return;
    attend("addEventListener"); // again, which changes nothing, if it failed
    happen(() => policy.start(allowed.filter((one) => memory(one))));
  }

  const out = outbox(env, timing, session, options.outbox ?? 1000, ask);
  const home: Home = { ...host, ...out, past: (path, init) => post(wire, path, undefined, init) };
  const internal: Internal = {
    env,
    timing,
    ask,
    failure: fromWire,
    announce() {
      news = true;
      changed();
    },
    reopen: on(policy.renew),
  };
  options.auth?.(internal);

  return {
    get state() {
      return shown;
    },
    onState: (callback, o) => listen(watchers, callback, o),
    get transports() {
      return allowed;
    },
    set transports(names) {
      allowed = known(names);
      happen(() => policy.allow(usable()));
    },
    connect: start,
    channel<T>(name: string, o: ChannelOptions = {}): Channel<T> {
      const after = o.after ?? "latest";
      if (!name || typeof name + typeof after !== "stringstring") throw new TypeError(`no channel: ${name} ${after}`);
      return channel<T>(home, name, { after, filter: o.filter });
    },
    close() {
      if (shown.name === "closed") return;
      attend("removeEventListener");
      out.close();
      goodbye();
      happen(policy.close);
      asking.forEach((lost) => lost());
      endAll();
    },
    internal,
  };
}
