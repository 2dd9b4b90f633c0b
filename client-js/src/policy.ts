/**
 * Which carrier feeds, which is probed, and when to come back: a pure reducer. No I/O, no clock, no randomness;
 * time and chance come in with each event, deadlines lie in the state, and what is to be done goes out as effects.
 *
 * The rules in short. Open is not works (P6.6). At first contact, and whenever the preferred carrier has failed three times in a row,
 * carriers race: the first carries the channels, the others join as probes, and the first to prove itself feeds. A better carrier
 * that was passed over is probed soon after; only if it fails while another one works is it demoted. If all fail it is an
 * outage: the order stays, and we back off.
 */
import { backoff } from "./backoff.js";
import { broken, ThroughlineError } from "./error.js";
import type { State, Timing, Transport } from "./types.js";

/** One thing the client opened (PROTOCOL §6). */
export interface Line {
  readonly id: number;
  readonly transport: Transport;
  readonly started: number;
  /** It goes on from one that had proved itself, so nobody needs to see it prove itself again. */
  readonly trusted: boolean;
  opened?: number;
  proved?: number;
  /** An event came. */
  fed: boolean;
  heartbeat: number;
  /** Dead if nothing happens until then. */
  until: number;
}

/** What we know of a carrier on this network. */
export interface Health {
  /** Lines in a row that died before they proved themselves. */
  misses: number;
  /** Lines in a row that proved themselves and died at once, with nothing to show. */
  flaps: number;
  /** When the first of those began, and when the last one died. */
  since: number;
  died: number;
  /** When it last proved itself. */
  proved: number;
  demoted: boolean;
}

export interface Policy {
  phase: "idle" | "active" | "waiting" | "failed" | "closed";
  /** In the back/forward cache. */
  asleep: boolean;
  /** The carriers allowed, best first. */
  order: readonly Transport[];
  health: Record<Transport, Health>;
  /** The number of the newest line. */
  last: number;
  feed?: Line;
  probes: Line[];
  /** The next connection is a race. */
  race: boolean;
  /** A race is on. */
  racing: boolean;
  /** Those who have not joined it yet, and when the next does. */
  queue: Transport[];
  joinAt: number;
  /** How long the last line took to open. */
  trip: number;
  attempt: number;
  retryAt: number;
  /** The server said when to come back. */
  ordered: boolean;
  reason?: ThroughlineError;
  /** When better carriers are probed, those still to probe this time, and the next step of `upward`. */
  upAt: number;
  better: Transport[];
  step: number;
  /** The network went away and nothing was heard since. */
  suspect: boolean;
}

type Happening =
  | { type: "start"; demoted: readonly Transport[] }
  | { type: "open"; line: number; heartbeat: number }
  /** A frame; `event` if it was one of a channel. May be thinned out, but not the first event nor the first frame late enough to prove. */
  | { type: "heard"; line: number; event: boolean }
  /** The line is over. `spoken`: the server said so. */
  | { type: "end"; line: number; error: ThroughlineError; spoken: boolean }
  | { type: "tick" }
  /** The channels changed, and the feeding carrier can't take that in flight (P6.11). */
  | { type: "renew" }
  | { type: "allow"; transports: readonly Transport[] }
  | { type: "network" }
  | { type: "offline" }
  | { type: "sleep" }
  | { type: "wake" }
  | { type: "close" };

export type PolicyEvent = Happening & { now: number; random: number };

export type Effect =
  /** `over`: the probe that showed the way; a WebSocket goes on with it (P6.8), anything else is opened anew. */
  | { type: "open"; line: number; transport: Transport; probe: boolean; over?: number }
  | { type: "close"; line: number }
  | { type: "remember"; transport: Transport; demoted: boolean };

const MANY = 3;
const ALL: readonly Transport[] = ["websocket", "sse", "poll"];
const well = (): Health => ({ misses: 0, flaps: 0, since: 0, died: 0, proved: -Infinity, demoted: false });

export function initial(order: readonly Transport[]): Policy {
  return {
    phase: "idle", asleep: false, order, health: { websocket: well(), sse: well(), poll: well() },
    last: 0, probes: [], race: true, racing: false, queue: [], joinAt: 0, trip: 0,
    attempt: 0, retryAt: 0, ordered: false, upAt: Infinity, better: [], step: 0, suspect: false,
  };
}

/** What the application sees. */
export function view(s: Policy): State {
  if (s.phase === "waiting") return { name: "waiting", retryAt: s.retryAt, reason: s.reason! };
  if (s.phase === "failed") return { name: "failed", error: s.reason! };
  if (s.phase !== "active") return { name: s.phase };
  return works(s.feed) ? { name: "online", transport: s.feed!.transport } : { name: "connecting" };
}

/** When the next tick is due. */
export function deadline(s: Policy): number {
  const due = lines(s).map((line) => line.until);
  if (s.phase === "waiting") due.push(s.retryAt);
  if (s.racing && s.queue.length) due.push(s.joinAt);
  if (mayRise(s)) due.push(s.upAt);
  return s.asleep ? Infinity : Math.min(Infinity, ...due);
}

function copy(s: Policy): Policy {
  const { websocket, sse, poll } = s.health;
  return {
    ...s, feed: s.feed && { ...s.feed }, probes: s.probes.map((line) => ({ ...line })), queue: [...s.queue], better: [...s.better],
    health: { websocket: { ...websocket }, sse: { ...sse }, poll: { ...poll } },
  };
}

const lines = (s: Policy): Line[] => (s.feed ? [s.feed, ...s.probes] : s.probes);
/** It proved itself, or goes on from one that did. */
const works = (line?: Line): boolean => !!(line && (line.proved || line.trusted));
const doubtful = (health: Health): boolean => health.misses + health.flaps >= MANY;
const mayRise = (s: Policy): boolean => !!s.feed?.proved && !s.racing && !s.probes.length;

/** Takes one event: the state after it, and what is to be done. */
export function reduce(before: Policy, event: PolicyEvent, t: Timing): [Policy, Effect[]] {
  const { now, random } = event;
  const s = copy(before);
  const effects: Effect[] = [];
  if (s.phase !== "closed") take(event);
  return [s, effects];

  function take(e: PolicyEvent): void {
    switch (e.type) {
      case "start":
        if (s.phase === "active" || s.phase === "waiting") return;
        for (const name of e.demoted) s.health[name].demoted = true;
        s.attempt = 0;
        s.race = true;
        return begin();
      case "open":
        return at(e.line, (line) => opened(line, e.heartbeat));
      case "heard":
        return at(e.line, (line) => heard(line, e.event));
      case "end":
        return at(e.line, (line) => lost(line, e.error, e.spoken));
      case "tick":
        return tick();
      case "renew":
        return renew();
      case "allow":
        return allow(e.transports);
      case "network":
        return network();
      case "offline":
        s.suspect = true;
        return;
      case "sleep":
        s.asleep = true;
        return leave();
      case "wake":
        if (!s.asleep) return;
        s.asleep = false;
        return s.phase === "active" ? begin() : tick();
      case "close":
        leave();
        s.phase = "closed";
    }
  }

  /** Calls back with the line of this number, if it has not been left. */
  function at(id: number, then: (line: Line) => void): void {
    const line = lines(s).find((one) => one.id === id);
    if (line) then(line);
  }

  // Connecting

  /** Demoted ones come later; those that die at once last of all, and take turns. */
  function byBlame(names: readonly Transport[]): Transport[] {
    const blame = (name: Transport): number => (s.health[name].flaps >= MANY ? s.health[name].died : Number(s.health[name].demoted));
    return [...names].sort((a, b) => blame(a) - blame(b));
  }

  /** Opens the line that is to feed, on the best carrier that nothing is held against. */
  function begin(): void {
    leave();
    s.phase = "active";
    if (s.asleep) return;
    const [first, ...rest] = byBlame(s.order);
    if (!first) return wait(Infinity, new ThroughlineError("no_transport", "never", "no transport is allowed"));
    s.racing = rest.length > 0 && (s.race || s.order.some((name) => (name === first || !s.health[name].demoted) && doubtful(s.health[name])));
    s.queue = s.racing ? rest : [];
    s.joinAt = now + Math.max(t.stagger, Math.min(3 * s.trip, t.connect / 2));
    s.feed = open(first);
  }

  function open(transport: Transport, o: { probe?: boolean; over?: number; trusted?: boolean; started?: number } = {}): Line {
    const started = o.started ?? now;
    const line: Line = { id: ++s.last, transport, started, trusted: !!o.trusted, fed: false, heartbeat: 0, until: started + t.connect };
    effects.push({ type: "open", line: line.id, transport, probe: !!o.probe, over: o.over });
    return line;
  }

  /** Leaves a line, or takes note that it ended. What it showed while it lived counts. */
  function drop(line: Line): void {
    effects.push({ type: "close", line: line.id });
    const health = s.health[line.transport];
    if (line.proved && settled(line)) health.misses = health.flaps = 0;
    if (line.proved && now - line.proved >= t.stable) {
      s.attempt = 0;
      if (!above(line).length) s.step = 0;
    }
    if (s.feed === line) s.feed = undefined;
    else s.probes = s.probes.filter((one) => one !== line);
  }

  /** Leaves every line. */
  function leave(): void {
    lines(s).forEach(drop);
    s.racing = false;
    s.queue = [];
    s.better = [];
  }

  function endRace(): void {
    if (!s.racing) return;
    s.probes.forEach(drop);
    s.racing = false;
    s.queue = [];
  }

  /** The next racer joins: as a probe, or carrying the channels if the one that did is gone. */
  function join(): void {
    const next = s.queue.shift()!;
    s.joinAt = now + t.join;
    if (s.feed) s.probes.push(open(next, { probe: true }));
    else s.feed = open(next);
  }

  /** P6.11: a new line for a changed set of channels. It doesn't get longer to prove itself than the one before. */
  function renew(): void {
    const old = s.feed;
    if (!old) return;
    drop(old);
    s.feed = open(old.transport, { trusted: works(old), started: old.proved ? now : old.started });
  }

  // What a line shows

  function opened(line: Line, heartbeat: number): void {
    if (line.opened) return;
    line.opened = now;
    line.heartbeat = heartbeat;
    line.until = now + t.connect / 2;
    s.trip = now - line.started;
    if (line.transport === "poll") proved(line); // an answer came, whole: that is all a poll can do
  }

  function heard(line: Line, event: boolean): void {
    if (!line.opened) return;
    if (event) line.fed = true;
    if (line === s.feed) s.suspect = false;
    if (line.proved) line.until = now + 2 * line.heartbeat;
    else if (now - line.opened >= t.proof) return proved(line);
  }

  function proved(line: Line): void {
    line.proved = now;
    line.until = now + 2 * line.heartbeat;
    const health = s.health[line.transport];
    health.misses = 0;
    health.proved = now;
    demote(line.transport, false);
    // Who died at once again and again, while this one works.
    for (const name of above(line)) if (s.health[name].flaps >= MANY) demote(name, true);
    if (line !== s.feed) return move(line);
    s.race = above(line).some((name) => !s.health[name].demoted);
    endRace();
    plan();
  }

  /** One line feeds (P6.12): the old one is left unread, then the channels resume where the probe showed the way. */
  function move(probe: Line): void {
    if (s.feed) drop(s.feed);
    s.probes = s.probes.filter((one) => one !== probe);
    s.probes.forEach(drop);
    s.racing = false;
    s.queue = [];
    s.better = [];
    s.upAt = Infinity;
    s.feed = open(probe.transport, { over: probe.id, trusted: true });
  }

  // Up

  function above(line: Line): Transport[] {
    return s.order.slice(0, Math.max(0, s.order.indexOf(line.transport)));
  }

  /** Says when better carriers are probed: soon if one was only passed over, by the steps if all were demoted. */
  function plan(): void {
    if (!s.feed?.proved) return;
    const better = above(s.feed);
    if (!better.length) s.upAt = Infinity;
    else if (better.some((name) => !s.health[name].demoted)) s.upAt = Math.min(s.upAt, now + t.soon);
    else if (s.upAt === Infinity) s.upAt = nextStep();
  }

  function nextStep(): number {
    return now + (t.upward[Math.min(s.step++, t.upward.length - 1)] ?? Infinity);
  }

  /** Probes the next better carrier, or is done for this time. */
  function rise(): void {
    const next = s.better.shift();
    if (next) s.probes.push(open(next, { probe: true }));
    else s.upAt = nextStep();
  }

  /** A carrier failed while a lesser one works. */
  function demote(name: Transport, demoted: boolean): void {
    const health = s.health[name];
    if (health.demoted !== demoted) effects.push({ type: "remember", transport: name, demoted });
    health.demoted = demoted;
  }

  // Down

  function settled(line: Line): boolean {
    return line.fed || (!!line.opened && now - line.opened >= t.settle);
  }

  function lost(line: Line, error: ThroughlineError, spoken: boolean): void {
    // "No such path" is about the carrier, not about us: another one may be mounted.
    if (error.code === "not_found") spoken = false;
    drop(line);
    if (!spoken) judge(line);
    if (works(s.feed)) return lostProbe(line, spoken ? error : undefined);
    if (spoken && error.class === "never") return fail(error);
    const ordered = spoken && error.class === "later";
    if (!ordered && s.racing && raceGoesOn()) return;
    retreat(error);
  }

  /** A probe ended beside a line that works. A racer that came too late says nothing; a better carrier that fails now is demoted. */
  function lostProbe(line: Line, refusal?: ThroughlineError): void {
    if (s.racing || !above(s.feed!).includes(line.transport)) return;
    if (refusal) s.better = [];
    else demote(line.transport, true);
    rise();
    if (refusal?.after) s.upAt = Math.max(s.upAt, now + refusal.after);
  }

  /** Of a race whose feeding line is gone, or one of its probes. */
  function raceGoesOn(): boolean {
    if (s.feed || s.probes.length) return true;
    if (!s.queue.length) return false;
    join();
    return true;
  }

  /** Counts a line that broke. */
  function judge(line: Line): void {
    const health = s.health[line.transport];
    if (!works(line)) {
      health.misses++;
    } else if (!settled(line)) {
      if (!health.flaps++) health.since = line.started;
      health.died = now;
      const other = s.order.some((name) => s.health[name].flaps < MANY && s.health[name].proved >= health.since);
      if (health.flaps >= MANY && other) {
        demote(line.transport, true);
        s.race = true;
        s.attempt = 0; // the other one is known to work
      }
    }
  }

  /** Nothing feeds: come back later. */
  function retreat(error: ThroughlineError): void {
    const ordered = error.class === "later";
    const jitter = s.attempt || ordered ? backoff(s.attempt, random, t) : random * t.prompt;
    s.attempt++;
    wait(now + (error.after ?? 0) + jitter, error, ordered);
  }

  function wait(until: number, reason: ThroughlineError, ordered = false): void {
    leave();
    s.phase = "waiting";
    s.retryAt = until;
    s.reason = reason;
    s.ordered = ordered;
  }

  function fail(error: ThroughlineError): void {
    leave();
    s.phase = "failed";
    s.reason = error;
  }

  // Time and the world

  function tick(): void {
    if (s.asleep) return;
    if (s.phase === "waiting" && now >= s.retryAt) return begin();
    for (const { id } of lines(s)) {
      at(id, (line) => {
        if (now >= line.until) lost(line, broken(!line.proved ? "no proof in time" : "silent for too long"), false);
      });
    }
    if (s.racing && s.queue.length && now >= s.joinAt) join();
    if (mayRise(s) && now >= s.upAt) {
      s.upAt = Infinity;
      const all = above(s.feed!);
      const passedOver = all.filter((name) => !s.health[name].demoted);
      s.better = byBlame(passedOver.length ? passedOver : all);
      rise();
    }
  }

  function allow(order: readonly Transport[]): void {
    const added = order.filter((name) => !s.order.includes(name));
    added.forEach(forgive);
    s.order = order;
    s.queue = s.queue.filter((name) => order.includes(name));
    s.better = s.better.filter((name) => order.includes(name));
    s.probes.filter((line) => !order.includes(line.transport)).forEach(drop);
    if (s.phase === "waiting" && s.retryAt === Infinity) s.retryAt = now;
    if (s.phase !== "active" || s.asleep) return tick();
    if (s.feed ? !order.includes(s.feed.transport) : !s.probes.length) {
      s.race = true;
      return begin();
    }
    if (added.length) {
      s.step = 0;
      s.upAt = Infinity;
    }
    plan();
  }

  function forgive(name: Transport): void {
    demote(name, false);
    s.health[name] = well();
  }

  /** Another network, or this one again: what we held against a carrier may be over. */
  function network(): void {
    const soon = now + random * t.spread;
    ALL.forEach(forgive);
    s.race = true;
    s.step = 0;
    if (s.phase === "waiting" && !s.ordered) s.retryAt = Math.min(s.retryAt, soon);
    if (s.feed && s.suspect) s.feed.until = Math.min(s.feed.until, soon);
    s.suspect = false;
    plan();
  }
}
