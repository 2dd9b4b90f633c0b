// A world to test clients in: fake time, a network that can be made bad, and a small server of PROTOCOL §§6, 9 and 10.

import assert from "node:assert/strict";

/** A seeded generator of numbers in [0, 1) (mulberry32). */
export function dice(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** All promises that can settle without time passing have settled. */
const quiet = () => new Promise(setImmediate);

export class Clock {
  now = 1_000_000;
  timers = new Map();
  last = 0;

  setTimeout(call, ms) {
    this.timers.set(++this.last, { at: this.now + Math.max(0, ms), call });
    return this.last;
  }

  clearTimeout(id) {
    this.timers.delete(id);
  }

  /** Lets time pass. */
  async pass(ms) {
    const until = this.now + ms;
    await quiet();
    for (;;) {
      let next;
      for (const [id, timer] of this.timers) if (timer.at <= until && (!next || timer.at < next.at)) next = { id, ...timer };
      if (!next) break;
      this.timers.delete(next.id);
      this.now = next.at;
      next.call();
      await quiet();
    }
    this.now = until;
  }
}

const position = (offset) => `1.${offset}`;
const error = (status, body) => ({ status, body: { error: body } });

export class World {
  clock = new Clock();
  channels = new Map();
  producers = new Map();
  /** Connections under way, to be cut. */
  connections = new Set();
  requests = [];
  /** The questions for history. */
  asks = [];
  /** What the network does to each carrier: "ok", "refuse", "hang", "buffer". */
  network = { websocket: "ok", sse: "ok", poll: "ok", up: "ok" };
  heartbeat = 25_000;
  latency = () => 10;
  /** Asked for each hello: a refusal to give instead. */
  refuse = () => undefined;
  /** The credentials that hold, or undefined: nobody is asked. And all that were shown: `{ by, text }`. */
  known = undefined;
  shown = [];
  /** Asked for each channel of a hello: an end to give instead. */
  refuseChannel = () => undefined;
  /** Asked for each publish frame: `{ error }` or `{ retry, tried }` to answer instead. */
  judge = () => undefined;
  /** Asked for each request or frame of §9: an answer to give instead of working on it; `null` to give none. */
  upstream = () => undefined;
  /** Asked for each answer of §9: whether it gets lost, its line or request living on. */
  swallow = () => false;
  /** Asked for each request of §9: whether something on the way says it twice. */
  doubled = () => false;
  /** What handles calls, by name. */
  handlers = { add: ([a, b]) => ({ data: a + b }) };
  /** Who is where: lists of members by channel. */
  present = new Map();
  remembered = 600_000;
  limit = 65_536;
  /** What was said upstream: `{ by, frame, head }`; and breaches of the protocol. */
  said = [];
  breaches = [];
  sessions = new Map();
  feeding = 0;
  opened = [];
  /** The channels that were asked for, each time. */
  asked = [];
  warnings = [];
  listeners = new Map();
  memory = new Map();

  constructor(seed = 1) {
    this.seed = seed;
    this.random = dice(seed);
  }

  env(more = {}) {
    const world = this;
    const { clock } = this;
    let secrets = 0;
    return {
      now: () => clock.now,
      steady: () => clock.now,
      random: this.random,
      secret: () => new Uint8Array(16).fill(++secrets),
      setTimeout: (call, ms) => clock.setTimeout(call, ms),
      clearTimeout: (id) => clock.clearTimeout(id),
      fetch: (url, init) => this.fetch(url, init),
      WebSocket: class extends FakeWebSocket {
        constructor(url) {
          super(world, url);
        }
      },
      storage: { getItem: (k) => this.memory.get(k) ?? null, setItem: (k, v) => this.memory.set(k, v), removeItem: (k) => this.memory.delete(k) },
      lifecycle: {
        addEventListener: (type, call) => this.listeners.set(type, call),
        removeEventListener: (type) => this.listeners.delete(type),
      },
      connection: undefined,
      console: { warn: (...a) => this.warnings.push(a), error: (...a) => this.warnings.push(a) },
      base: "http://example.test/page",
      ...more,
    };
  }

  page(type, event = {}) {
    this.listeners.get(type)?.(event);
  }

  // The log

  channel(name) {
    if (!this.channels.has(name)) this.channels.set(name, { events: [], first: 0 });
    return this.channels.get(name);
  }

  append(name, data, type = "message", more = {}) {
    const { events } = this.channel(name);
    events.push({ channel: name, position: position(events.length + 1), type, ...payload(data), ...more });
    for (const connection of [...this.connections]) connection.line?.flush();
    return position(events.length);
  }

  trim(name) {
    const log = this.channel(name);
    log.first = log.events.length;
  }

  /** A page of §12. */
  history(query) {
    this.asks.push(query);
    const name = query.get("channel");
    if (name === "secret") return error(403, { code: "forbidden", class: "never", message: "no" });
    const log = this.channel(name);
    const place = (bound) => (query.has(bound) ? Number(query.get(bound).slice(2)) : undefined);
    const back = query.get("order") === "desc";
    const [after, until] = [place("after") ?? log.first, Math.min(place("until") ?? Infinity, log.events.length)];
    const limit = Number(query.get("limit"));
    const wanted = { types: query.getAll("type"), tags: query.getAll("tag"), keys: query.getAll("key") };
    let at = back ? until : Math.max(after, log.first);
    const events = [];
    const left = () => (back ? at > Math.max(after, log.first) : at < until);
    for (; left() && events.length < limit; at += back ? -1 : 1) {
      const event = log.events[back ? at - 1 : at];
      if (passes(wanted, event)) events.push({ ...event, time: 1000 });
    }
    const gap = after < log.first ? { from: position(after), to: position(log.first), reason: "trimmed" } : undefined;
    const done = !left();
    return { status: 200, body: { events, next: position(at), done, ...(log.first && { trimmed: true }), first: position(log.first), head: position(log.events.length), ...(gap && (!back || done) && { gap }) } };
  }

  /** Cuts connections; what is on its way is lost. */
  cut(which = () => true) {
    for (const connection of [...this.connections]) if (which(connection)) connection.cut();
  }

  // HTTP

  fetch(url, init) {
    if (init.signal?.aborted) return Promise.reject(new Error("aborted by the client"));
    const { pathname, searchParams } = new URL(url);
    const route = pathname.split("/").pop();
    const connection = new Request(this, route, init);
    this.requests.push({ at: this.clock.now, route, headers: init.headers, body: init.body, keepalive: init.keepalive });
    connection.toServer(() => {
      const stranger = this.stranger(route, init.headers.Authorization?.replace(/^Bearer /, ""));
      if (stranger) return connection.answer(stranger);
      if (route === "history") return connection.answer(this.history(searchParams));
      if (route === "up") return this.request(connection, JSON.parse(init.body));
      const { hello } = JSON.parse(init.body);
      const refusal = this.refuse(route, hello);
      if (refusal) return connection.answer(refusal);
      this.opened.push({ at: this.clock.now, transport: route, hello });
      connection.line = route === "sse" ? new Stream(this, hello, connection) : new Poll(this, hello, connection, searchParams.get("wait"));
      connection.line.begin();
    });
    return connection.promise;
  }

  /** P6.21: the refusal for who shows nothing that holds. */
  stranger(by, text) {
    if (text !== undefined) this.shown.push({ by, text });
    if (!this.known || this.known.has(text)) return undefined;
    return { status: 401, body: { error: { code: "unauthorized", class: "never", message: "unknown" } } };
  }

  // Sessions

  open(hello, line) {
    const open = { version: 1, line: hello.line, heartbeat: this.heartbeat };
    if (hello.probe) return open;
    const session = this.sessions.get(hello.token) ?? { token: `token-${this.sessions.size + 1}` };
    Object.assign(open, { remembered: this.remembered, limit: this.limit });
    if (session.token !== hello.token) open.token = session.token;
    this.sessions.set(session.token, session);
    Object.assign(session, { line: hello.line, over: false });
    line.session = session;
    return open;
  }

  // Presence

  attend(name, members) {
    const { version = 0, members: before = [] } = this.present.get(name) ?? {};
    this.present.set(name, { version: version + 1, members });
    const frame = { version: `v${version + 1}`, total: members.length, joined: members.filter((m) => !before.includes(m)), left: before.filter((m) => !members.includes(m)).map(({ id }) => id) };
    for (const { line } of [...this.connections]) if (line?.watched.has(name)) (line.send({ channel: name, presence: frame }), line.flush());
  }

  attendance(name, seen) {
    const { version = 0, members = [] } = this.present.get(name) ?? {};
    if (name === "secret") return { end: { code: "forbidden", class: "never", message: "no" } };
    return { version: `v${version}`, total: members.length, members, ...(seen === `v${version}` && { same: true }) };
  }

  // Upstream

  /** A request of P9.1. */
  request(connection, { up, ...frame }) {
    assert.equal(up.version, 1);
    this.said.push({ by: "request", frame, head: up });
    const instead = this.upstream(frame, "request");
    if (instead !== undefined) return instead && connection.answer(instead);
    if (this.doubled()) this.clock.setTimeout(() => this.work(frame), this.random() * 2000);
    if (frame.close && this.sessions.has(up.token)) this.sessions.get(up.token).over = frame.close.line;
    const body = this.work(frame);
    if (!this.swallow(frame)) connection.answer({ status: 200, body });
  }

  work({ publish, call }) {
    if (publish) return { published: this.publish(publish) };
    if (call) return { answer: { id: call.id, ...this.call(call) } };
    return {};
  }

  call({ name, data, encoding, key }) {
    const handler = this.handlers[name];
    return handler ? handler(data, { encoding, key }) : { error: { code: "forbidden", class: "never", message: "no such call" } };
  }

  publish({ producer, frames }) {
    const breach = (what) => this.breaches.push(what);
    if (!/^[\w-]{22,64}$/.test(producer)) breach("a producer's name");
    if (new Set(frames.map(({ channel }) => channel)).size < frames.length || frames.length < 1 || frames.length > 64) breach("a batch's frames");
    const published = [];
    let before = 0;
    for (const frame of frames) {
      const { seq, channel, messages, repeat } = frame;
      if (seq <= before || messages.length < 1 || messages.length > 100) breach("a publish frame");
      before = seq;
      const verdict = this.judge(frame);
      if (verdict?.retry) {
        published.push({ seq, ...verdict });
        break;
      }
      published.push({ seq, ...this.appendFrame(producer, frame, verdict) });
    }
    return published;
  }

  appendFrame(producer, { seq, channel, messages, repeat }, verdict) {
    const key = `${producer} ${channel}`;
    const last = this.producers.get(key);
    if (last?.seq === seq) {
      if (last.frame !== JSON.stringify(messages)) this.breaches.push("a repeat that is another");
      return { position: last.position, duplicate: true };
    }
    const refusal = (error) => ({ error: repeat && !["invalid", "bad_channel"].includes(error.code) ? { code: "unknown", class: "never" } : error });
    if (seq < last?.seq) return refusal({ code: "stale", class: "never" });
    if (verdict) return refusal(verdict.error);
    for (const { data, encoding, type } of messages) {
      const events = this.channel(channel).events;
      events.push({ channel, position: position(events.length + 1), type: type ?? "message", data, ...(encoding === "base64" && { encoding }) });
    }
    this.producers.set(key, { seq, position: position(this.channel(channel).events.length), frame: JSON.stringify(messages) });
    for (const connection of [...this.connections]) connection.line?.flush();
    return { position: this.producers.get(key).position };
  }
}

/** P2.9. */
function passes({ types = [], tags = [], keys = [] } = {}, event) {
  const some = (words, its) => !words.length || words.some((word) => its.includes(word));
  return some(types, [event.type]) && some(tags, event.tags ?? []) && some(keys, [event.key]);
}

function payload(data) {
  return data instanceof Uint8Array ? { data: btoa(String.fromCharCode(...data)), encoding: "base64" } : { data };
}

/** One connection between client and server: keeps order both ways, and can be cut. */
class Connection {
  dead = false;
  left = 0; // when the last thing on its way arrives, each way
  came = 0;

  constructor(world, transport) {
    this.world = world;
    this.transport = transport;
    this.mode = world.network[transport];
    world.connections.add(this);
  }

  toServer(call) {
    const { clock } = this.world;
    if (this.mode === "hang") return;
    if (this.mode === "refuse") return void clock.setTimeout(() => this.cut(), this.world.latency());
    this.left = Math.max(this.left, clock.now + this.world.latency());
    clock.setTimeout(() => this.dead || call(), this.left - clock.now);
  }

  toClient(call) {
    const { clock } = this.world;
    this.came = Math.max(this.came, clock.now + this.world.latency());
    clock.setTimeout(() => this.dead || call(), this.came - clock.now);
  }

  /** The network breaks it. */
  cut() {
    if (this.over()) this.broken();
  }

  /** Nobody needs it any more. */
  over() {
    if (this.dead) return false;
    this.dead = true;
    this.world.connections.delete(this);
    this.line?.stop();
    return true;
  }
}

class Request extends Connection {
  constructor(world, transport, init) {
    super(world, transport);
    this.promise = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.chunks = [];
    this.signal = init.signal;
    this.keepalive = init.keepalive;
    this.aborted = () => this.over() && this.fail(new Error("aborted by the client"));
    this.signal?.addEventListener("abort", this.aborted);
  }

  over() {
    this.signal?.removeEventListener("abort", this.aborted);
    return super.over();
  }

  fail(cause) {
    this.failure = cause;
    this.reject(cause);
    this.reader?.reject(cause);
  }

  broken() {
    this.fail(new TypeError("network error"));
  }

  answer({ status, body, headers = {} }) {
    this.toClient(() => {
      this.over();
      this.resolve({ ok: status < 300, status, headers: { get: (name) => headers[name] ?? null }, json: async () => JSON.parse(JSON.stringify(body)) });
    });
  }

  /** A response that goes on. */
  stream() {
    if (this.mode === "buffer") return;
    const read = () => {
      if (this.chunks.length) return Promise.resolve({ done: false, value: this.chunks.shift() });
      if (this.failure) return Promise.reject(this.failure);
      if (this.ended) return Promise.resolve({ done: true });
      return new Promise((resolve, reject) => (this.reader = { resolve, reject }));
    };
    const body = { getReader: () => ({ read, cancel: async () => this.over() }) };
    this.toClient(() => this.resolve({ ok: true, status: 200, headers: { get: (n) => (n === "Content-Type" ? "text/event-stream" : null) }, body }));
  }

  chunk(bytes) {
    if (this.mode === "buffer") return;
    this.toClient(() => {
      if (!this.reader) return this.chunks.push(bytes);
      const { resolve } = this.reader;
      this.reader = undefined;
      resolve({ done: false, value: bytes });
    });
  }

  end() {
    this.toClient(() => {
      this.ended = true;
      this.over();
      this.reader?.resolve({ done: true });
    });
  }
}

class FakeWebSocket extends Connection {
  /** Channels that were left or paused, and whose end has not come to the client yet (P6.10, P6.18). */
  owed = new Set();

  constructor(world, url) {
    super(world, "websocket");
    world.requests.push({ at: world.clock.now, route: new URL(url).pathname.split("/").pop() });
    this.toServer(() => this.toClient(() => this.onopen?.({})));
  }

  send(text) {
    const frame = JSON.parse(text);
    for (const { channel, paused } of frame.hello?.channels ?? []) if (paused) this.owed.add(channel);
    for (const { channel } of frame.subscribe ?? []) if (this.owed.has(channel)) this.world.breaches.push(`${channel} is subscribed before its end came`);
    for (const name of [...(frame.pause ?? []), ...(frame.unsubscribe ?? [])]) this.owed.add(name);
    // What was sent before a close arrives all the same.
    if (frame.close) this.world.said.push({ by: "websocket", frame });
    else this.toServer(() => this.receive(frame));
  }

  receive(frame) {
    const { world } = this;
    if (frame.credentials !== undefined) {
      this.shown = frame.credentials;
      const refusal = this.line && world.stranger("line", this.shown);
      if (refusal) this.line.goodbye(refusal.body.error);
      return;
    }
    if (frame.publish || frame.call) return this.upstream(frame);
    if (frame.hello) {
      if (this.line && !this.line.hello.probe) throw new Error("a second hello on a line");
      this.line?.stop();
      const refusal = world.stranger("websocket", this.shown) ?? world.refuse("websocket", frame.hello);
      if (refusal) {
        this.toClient(() => this.onmessage?.({ data: JSON.stringify({ close: refusal.body.error }) }));
        const { code, after, class: kind } = refusal.body.error;
        const number = { now: 4000, later: 4001, never: 4002 }[kind];
        return this.toClient(() => this.over() && this.onclose?.({ code: number, reason: after === undefined ? code : `${code} ${after}` }));
      }
      world.opened.push({ at: world.clock.now, transport: "websocket", hello: frame.hello });
      this.line = new Line(world, frame.hello, this, (f) => this.toClient(() => {
        if (f.end) this.owed.delete(f.channel);
        this.onmessage?.({ data: JSON.stringify(f) });
      }));
      this.line.begin();
    }
    for (const wanted of frame.subscribe ?? []) this.line.subscribe(wanted);
    for (const name of frame.unsubscribe ?? []) this.line.unsubscribe(name);
    for (const name of frame.pause ?? []) this.line.pause(name);
    if (frame.presence) this.line.attend(frame.presence);
    this.line.flush();
  }

  upstream(frame) {
    const { world, line } = this;
    world.said.push({ by: "websocket", frame });
    if (frame.publish && line.publishing) world.breaches.push("a second batch on a line");
    const instead = world.upstream(frame, "websocket");
    if (instead === null) return void (line.publishing ||= !!frame.publish);
    const body = instead ?? world.work(frame);
    line.publishing ||= !!frame.publish;
    if (world.swallow(frame)) return;
    // Answered a while later, and not by whatever line took this one's place.
    this.toClient(() => {
      if (frame.publish) line.publishing = false;
      this.onmessage?.({ data: JSON.stringify(body) });
    });
  }

  broken() {
    this.onclose?.({ code: 1006, reason: "" });
  }

  close() {
    this.over();
  }

  end() {
    this.toClient(() => this.over() && this.onclose?.({ code: 1000, reason: "" }));
  }
}

/** The server's side of a line. */
class Line {
  cursors = new Map();
  filters = new Map();
  paused = new Set();
  gifts = new Set();
  watched = new Set();
  timers = [];

  constructor(world, hello, connection, send) {
    Object.assign(this, { world, hello, connection, send });
  }

  begin() {
    const { world, hello } = this;
    this.send({ open: world.open(hello, this) });
    for (const wanted of hello.channels ?? []) this.subscribe(wanted);
    this.attend(hello.presence ?? []);
    this.flush();
    this.beat(200);
    if (hello.probe) this.timers.push(world.clock.setTimeout(() => this.goodbye({ code: "probe_over", class: "now" }), 10_000));
  }

  beat(after) {
    const { clock } = this.world;
    this.timers.push(clock.setTimeout(() => {
      if (this.connection.dead) return;
      this.send({});
      if (!this.hello.probe) this.beat(this.world.heartbeat);
    }, after));
  }

  goodbye(close) {
    this.send({ close });
    this.connection.end();
  }

  stop() {
    this.timers.forEach((timer) => this.world.clock.clearTimeout(timer));
    this.cursors.clear();
  }

  subscribe({ channel: name, after = "latest", paused, filter }) {
    if (this.cursors.has(name) && !this.gifts.has(name)) this.world.breaches.push(`${name} is subscribed already`);
    this.cursors.delete(name); // the gift and the question met on the way: the client's place counts
    this.gifts.delete(name);
    this.paused.delete(name);
    if (paused) {
      this.paused.add(name);
      return this.send({ channel: name, end: { code: "paused", class: "now" } });
    }
    this.world.asked.push(name);
    this.filters.set(name, filter);
    const end = this.world.refuseChannel(name);
    if (end) return this.send({ channel: name, end });
    const log = this.world.channel(name);
    const head = log.events.length;
    const at = after === "latest" ? head : after === "earliest" ? log.first : after.startsWith("last=") ? Math.max(log.first, head - Number(after.slice(5))) : Number(after.slice(2));
    this.cursors.set(name, Math.max(at, log.first));
    if (at < log.first) this.send({ channel: name, gap: { from: position(at), to: position(log.first), reason: "trimmed" } });
    else this.send({ channel: name, position: position(at) });
  }

  unsubscribe(name) {
    this.gifts.delete(name);
    if (this.cursors.delete(name) || this.paused.delete(name)) this.send({ channel: name, end: { code: "unsubscribed", class: "now" } });
  }

  pause(name) {
    if (!this.cursors.delete(name)) return;
    this.paused.add(name);
    this.send({ channel: name, end: { code: "paused", class: "now" } });
  }

  /** P6.19: the program gives a channel, or takes it away. */
  give(name) {
    if (this.cursors.has(name) || this.paused.has(name)) return;
    const at = this.world.channel(name).events.length;
    this.cursors.set(name, at);
    this.gifts.add(name);
    this.send({ channel: name, position: position(at), given: true });
  }

  remove(name) {
    this.cursors.delete(name);
    this.gifts.delete(name);
    this.send({ channel: name, end: { code: "removed", class: "never" } });
  }

  /** P10: asks replace what was asked before. */
  attend(asked) {
    for (const { channel, seen } of asked) if (!this.watched.has(channel)) this.send({ channel, presence: this.world.attendance(channel, seen) });
    this.watched = new Set(asked.map(({ channel }) => channel));
  }

  flush() {
    for (const [name, cursor] of this.cursors) {
      const { events } = this.world.channel(name);
      for (const event of events.slice(cursor)) if (passes(this.filters.get(name), event)) this.send(event);
      this.cursors.set(name, events.length);
    }
  }
}

/** SSE: a block a frame, cut into chunks anywhere. */
class Stream extends Line {
  constructor(world, hello, connection) {
    super(world, hello, connection, (frame) => {
      const bytes = new TextEncoder().encode(`data: ${JSON.stringify(frame)}\n\n`);
      const at = Math.floor(world.random() * bytes.length);
      connection.chunk(bytes.subarray(0, at));
      connection.chunk(bytes.subarray(at));
    });
    connection.stream();
  }
}

/** Long-poll: one answer. */
class Poll extends Line {
  answer = { events: [], positions: {}, gaps: [], ends: [], presence: [] };
  done = false;

  constructor(world, hello, connection, wait) {
    super(world, hello, connection, (frame) => this.collect(frame));
    this.wait = parseFloat(wait) * (wait.endsWith("ms") ? 1 : 1000);
  }

  begin() {
    const { hello, world } = this;
    this.collect({ open: world.open(hello, this) });
    for (const wanted of hello.channels ?? []) this.subscribe(wanted);
    this.attend(hello.presence ?? []);
    const resumes = (hello.channels ?? []).every(({ after }) => after?.startsWith("1."));
    this.ready = hello.probe || !resumes || !this.wait;
    this.flush();
    if (!this.done) this.timers.push(world.clock.setTimeout(() => this.finish(), this.wait));
  }

  collect(frame) {
    const { answer } = this;
    if (frame.open) answer.open = frame.open;
    else if (frame.presence) answer.presence.push(frame);
    else if (frame.end) answer.ends.push(frame);
    else if (frame.gap) answer.gaps.push(frame);
    else if (frame.type) answer.events.push(frame);
    else if (frame.close) answer.close = frame.close;
    else if (frame.refresh) answer.refresh = frame.refresh;
    if ((frame.end && frame.end.code !== "paused") || frame.gap || frame.type || frame.close || frame.refresh || (frame.presence && !frame.presence.same)) this.ready = true;
  }

  flush() {
    if (this.done) return;
    super.flush();
    if (this.ready) this.finish();
  }

  finish() {
    this.done = true;
    for (const [name, cursor] of this.cursors) this.answer.positions[name] = position(cursor);
    this.stop();
    this.connection.answer({ status: 200, body: this.answer });
  }

  goodbye(close) {
    if (this.done) return;
    this.collect({ close });
    this.finish();
  }
}
