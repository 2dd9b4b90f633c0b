/**
 * Which carrier feeds, which is probed, and when to come back: a machine without I/O, clock or randomness.
 * Time and chance come in with each event, deadlines lie in its state, and what is to be done is said at its port.
 *
 * The rules in short. Open is not works (P6.6). At first contact, and whenever the preferred carrier has failed three times in a row,
 * carriers race: the first carries the channels, the others join as probes, and the first to prove itself feeds. A better carrier
 * that was passed over is probed soon after; only if it fails while another one works is it demoted, and one that proved itself
 * and died at once, three times, is probed for longer. If all fail it is an outage: the order stays, and we back off.
 */
import { backoff } from "./backoff.js";
import { broken, never, type ThroughlineError } from "./error.js";
import type { State, Timing, Transport } from "./types.js";

/** One thing the client opened (PROTOCOL §6). */
export interface Line {
  readonly id: number;
  readonly via: Transport;
  readonly started: number;
  /** It goes on from one that had proved itself, so nobody needs to see it prove itself again. */
  readonly trusted: boolean;
  opened?: number;
  proved?: number;
  beat?: number;
  /** Dead if nothing happens until then. */
  lapses: number;
}

/** What we know of a carrier on this network. */
export interface Health {
  /** Lines in a row that died before they proved themselves. */
  misses: number;
  /** Lines in a row that proved themselves and died at once. */
  flaps: number;
  /** When the first of those began, and when the last one died. */
  flapped?: number;
  died?: number;
  /** When it last proved itself. */
  proved?: number;
  demoted: boolean;
}

/** What the policy has done. */
export interface Port {
  /** `over`: the probe that showed the way; a WebSocket goes on with it (P6.8), anything else is opened anew. */
  open(line: number, transport: Transport, probe: boolean, over?: number): void;
  close(line: number): void;
  remember(transport: Transport, demoted: boolean): void;
}

const MANY = 3;
/** Best first. */
export const ALL: readonly Transport[] = ["websocket", "sse", "poll"];
const well = (): Health => ({ misses: 0, flaps: 0, demoted: false });

/** It proved itself, or goes on from one that did. */
const works = (line?: Line): boolean => !!(line && (line.proved || line.trusted));
const doubtful = (health: Health): boolean => health.misses + health.flaps >= MANY;

/** Decides over one client's lines. */
export interface Policy {
  /** Comes before all that happens: the time, and a number of chance. */
  moment(now: number, random: number): void;
  start(demoted: readonly Transport[]): void;
  open(line: number, heartbeat: number): void;
  /** A frame of a line that is open. May be thinned out, but not the first that is late enough to prove. */
  heard(line: number): void;
  /** The line is over. */
  end(line: number, error: ThroughlineError): void;
  tick(): void;
  /** P6.11: the channels changed, and the feeding carrier can't take that in flight. */
  renew(): void;
  allow(transports: readonly Transport[]): void;
  network(): void;
  suspected(): void;
  sleep(): void;
  wake(): void;
  close(): void;
  /** What the application sees. */
  view(): State;
  /** When the next tick is due. */
  deadline(): number;
  /** The number of the line that feeds, if there is one, and of the newest. */
  feed(): number | undefined;
  last(): number;
}

export function policy(order: readonly Transport[], t: Timing, port: Port): Policy {
  const health: Record<Transport, Health> = { websocket: well(), sse: well(), poll: well() };
  let phase: "idle" | "active" | "waiting" | "failed" | "closed" = "idle";
  /** In the back/forward cache. */
  let asleep = false;
  /** The number of the newest line. */
  let last = 0;
  let feed: Line | undefined;
  let probes: Line[] = [];
  /** The next connection is a race. */
  let race = true;
  /** A race is on; those who have not joined it yet, and when the next does. */
  let racing = false;
  let queue: Transport[] = [];
  let joinAt = 0;
  /** How long the last line took to open. */
  let trip = 0;
  let attempt = 0;
  let retryAt = 0;
  /** The server said when to come back. */
  let ordered = false;
  let reason: ThroughlineError | undefined;
  /** When better carriers are probed, those still to probe this time, and the next step of `upward`. */
  let upAt = Infinity;
  let better: Transport[] = [];
  let step = 0;
  /** The network went away and nothing was heard since. */
  let suspect = false;
  /** Of what happens now. */
  let now = 0;
  let random = 0;

  return {
    moment(time, chance) {
      now = time;
      random = chance;
    },
    start(demoted) {
      if (phase !== "idle" && phase !== "failed") return;
      for (const name of demoted) health[name].demoted = true;
      attempt = 0;
      race = true;
      begin();
    },
    open: (id, heartbeat) => at(id, (line) => opened(line, heartbeat)),
    heard: (id) => at(id, heard),
    end: (id, error) => at(id, (line) => lost(line, error)),
    tick,
    renew,
    allow,
    network,
    suspected() {
      suspect = true;
    },
    sleep() {
      asleep = true;
      leave();
    },
    wake() {
      if (!asleep) return;
      asleep = false;
      if (phase === "active") begin();
      else tick();
    },
    close() {
      leave();
      phase = "closed";
    },
    view() {
      if (phase === "waiting") return { name: phase, retryAt, reason: reason! };
      if (phase === "failed") return { name: phase, error: reason! };
      if (phase !== "active") return { name: phase };
      return works(feed) ? { name: "online", transport: feed!.via } : { name: "connecting" };
    },
    deadline() {
      const due = lines().map((line) => line.lapses);
      if (phase === "waiting") due.push(retryAt);
      if (racing && queue.length) due.push(joinAt);
      if (mayRise()) due.push(upAt);
      return asleep ? Infinity : Math.min(...due);
    },
    feed: () => feed?.id,
    last: () => last,
  };

  function lines(): Line[] {
    return feed ? [feed, ...probes] : probes;
  }

  function mayRise(): boolean {
    return !!feed?.proved && !racing && !probes.length;
  }

  /** Calls back with the line of this number, if it has not been left. */
  function at(id: number, then: (line: Line) => void): void {
    const line = lines().find((one) => one.id === id);
    if (line) then(line);
  }

  // Connecting

  /** Demoted ones come later; those that die at once last of all, and take turns. */
  function byBlame(names: readonly Transport[]): Transport[] {
    const blame = (name: Transport): number => (health[name].flaps >= MANY ? health[name].died! : Number(health[name].demoted));
    return [...names].sort((a, b) => blame(a) - blame(b));
  }

  /** Opens the line that is to feed, on the best carrier that nothing is held against. */
  function begin(): void {
    leave();
    phase = "active";
    if (asleep) return;
    const [first, ...rest] = byBlame(order);
    if (!first) return wait(Infinity, never("no_transport", "no transport"));
    racing = rest.length > 0 && (race || order.some((name) => (name === first || !health[name].demoted) && doubtful(health[name])));
    queue = racing ? rest : [];
    joinAt = now + Math.max(t.stagger, Math.min(3 * trip, t.connect / 2));
    feed = open(first);
  }

  function open(via: Transport, o: { probe?: boolean; over?: number; trusted?: boolean; started?: number } = {}): Line {
    const started = o.started ?? now;
    const line: Line = { id: ++last, via, started, trusted: !!o.trusted, lapses: started + t.connect };
    port.open(line.id, via, !!o.probe, o.over);
    return line;
  }

  /** Leaves a line, or takes note that it ended. What it showed while it lived counts. */
  function drop(line: Line): void {
    port.close(line.id);
    if (feed !== line) return void (probes = probes.filter((one) => one !== line));
    feed = undefined;
    if (line.proved && settled(line)) health[line.via].flaps = 0;
    if (now - line.proved! >= t.stable) {
      attempt = 0;
      if (!above(line).length) step = 0;
    }
  }

  /** Leaves every line. */
  function leave(): void {
    lines().forEach(drop);
    racing = false;
    queue = [];
    better = [];
  }

  function endRace(): void {
    if (!racing) return;
    probes.forEach(drop);
    racing = false;
    queue = [];
  }

  /** The next racer joins: as a probe, or carrying the channels if the one that did is gone. */
  function join(): void {
    const next = queue.shift()!;
    joinAt = now + t.join;
    if (feed) probes.push(open(next, { probe: true }));
    else feed = open(next);
  }

  /** P6.11: a new line for a changed set of channels. It doesn't get longer to prove itself than the one before. */
  function renew(): void {
    const old = feed;
    if (!old) return;
    drop(old);
    feed = open(old.via, { trusted: works(old), started: old.proved ? now : old.started });
  }

  // What a line shows

  function opened(line: Line, heartbeat: number): void {
    if (line.opened) return;
    line.opened = now;
    line.beat = heartbeat;
    line.lapses = now + t.connect / 2;
    trip = now - line.started;
    if (line.via === "poll") prove(line); // an answer came, whole: that is all a poll can do
  }

  function heard(line: Line): void {
    if (line === feed) suspect = false;
    if (line.proved) line.lapses = now + 2 * line.beat!;
    else if (now - line.opened! >= t.proof) prove(line);
  }

  function prove(line: Line): void {
    const it = health[line.via];
    // Who died at once again and again has to live for a while beside the one that works.
    const onTrial = !racing && line !== feed && it.flaps >= MANY && !line.proved;
    line.proved = now;
    line.lapses = now + (onTrial ? t.settle : 2 * line.beat!);
    if (onTrial) return;
    it.misses = 0;
    it.proved = now;
    demote(line.via, false);
    // Who died at once again and again, while this one works.
    for (const name of above(line)) if (health[name].flaps >= MANY) demote(name, true);
    if (line !== feed) return move(line);
    race = above(line).some((name) => !health[name].demoted);
    endRace();
    plan();
  }

  /** One line feeds (P6.12): the old one is left unread, then the channels resume where the probe showed the way. */
  function move(probe: Line): void {
    probes = probes.filter((one) => one !== probe);
    leave();
    upAt = Infinity;
    feed = open(probe.via, { over: probe.id, trusted: true });
  }

  // Up

  function above(line: Line): Transport[] {
    return order.slice(0, Math.max(0, order.indexOf(line.via)));
  }

  /** Says when better carriers are probed: soon if one was only passed over, by the steps if all were demoted. */
  function plan(): void {
    if (!feed?.proved) return;
    const names = above(feed);
    if (!names.length) upAt = Infinity;
    else if (names.some((name) => !health[name].demoted)) upAt = Math.min(upAt, now + t.soon);
    else if (upAt === Infinity) upAt = nextStep();
  }

  function nextStep(): number {
    return now + (t.upward[Math.min(step++, t.upward.length - 1)] ?? Infinity);
  }

  /** Probes the next better carrier, or is done for this time. */
  function rise(): void {
    const next = better.shift();
    if (next) probes.push(open(next, { probe: true }));
    else upAt = nextStep();
  }

  /** A carrier failed while a lesser one works. */
  function demote(name: Transport, demoted: boolean): void {
    const it = health[name];
    if (it.demoted !== demoted) port.remember(name, demoted);
    it.demoted = demoted;
  }

  // Down

  /** It lived long enough to be worth its opening, whatever it brought: a box that kills WebSockets soon lets some events through first. */
  function settled(line: Line): boolean {
    return now - line.opened! >= t.settle; // if it never opened it did not live: nothing is less than NaN
  }

  function lost(line: Line, error: ThroughlineError): void {
    // These are about the carrier, not about us: another one may be mounted, or get past what stands between.
    const spoken = error.class === "later" || !["network", "not_found", "refused"].includes(error.code);
    drop(line);
    if (!spoken) judge(line);
    if (works(feed)) return lostProbe(line, spoken ? error : undefined);
    if (spoken && error.class === "never") return fail(error);
    if (error.class !== "later" && racing && raceGoesOn()) return;
    retreat(error);
  }

  /** A probe ended beside a line that works. A racer that came too late says nothing; a better carrier that fails now is demoted. */
  function lostProbe(line: Line, refusal?: ThroughlineError): void {
    if (racing || !above(feed!).includes(line.via)) return;
    if (refusal) better = [];
    else demote(line.via, true);
    rise();
    if (refusal?.after) upAt = Math.max(upAt, now + refusal.after);
  }

  /** Of a race whose feeding line is gone, or one of its probes. */
  function raceGoesOn(): boolean {
    if (feed || probes.length) return true;
    if (!queue.length) return false;
    join();
    return true;
  }

  /** Counts a line that broke. */
  function judge(line: Line): void {
    const it = health[line.via];
    if (!works(line)) {
      it.misses++;
    } else if (!settled(line)) {
      if (!it.flaps++) it.flapped = line.started;
      it.died = now;
      const other = order.some((name) => health[name].flaps < MANY && health[name].proved! >= it.flapped!);
      if (it.flaps >= MANY && other) {
        demote(line.via, true);
        race = true;
        if (it.flaps === MANY) attempt = 0; // the other one is known to work
      }
    }
  }

  /** Nothing feeds: come back later. */
  function retreat(error: ThroughlineError): void {
    ordered = error.class === "later";
    const jitter = attempt || ordered ? backoff(attempt, random, t) : random * t.prompt;
    attempt++;
    wait(now + (error.after ?? 0) + jitter, error);
  }

  function wait(until: number, why: ThroughlineError): void {
    leave();
    phase = "waiting";
    retryAt = until;
    reason = why;
  }

  function fail(error: ThroughlineError): void {
    leave();
    phase = "failed";
    reason = error;
  }

  // Time and the world

  function tick(): void {
    if (asleep) return;
    if (phase === "waiting" && now >= retryAt) return begin();
    for (const { id } of lines()) {
      at(id, (line) => {
        if (now < line.lapses) return;
        if (line !== feed && line.proved) prove(line);
        else lost(line, broken(line.proved ? "silent" : "no proof"));
      });
    }
    if (racing && queue.length && now >= joinAt) join();
    if (mayRise() && now >= upAt) {
      upAt = Infinity;
      const all = above(feed!);
      const passedOver = all.filter((name) => !health[name].demoted);
      better = byBlame(passedOver.length ? passedOver : all);
      rise();
    }
  }

  function allow(names: readonly Transport[]): void {
    const added = names.filter((name) => !order.includes(name));
    added.forEach(forgive);
    order = names;
    queue = queue.filter((name) => order.includes(name));
    better = better.filter((name) => order.includes(name));
    probes.filter((line) => !order.includes(line.via)).forEach(drop);
    if (phase === "waiting" && retryAt === Infinity) retryAt = now;
    if (phase !== "active" || asleep) return tick();
    if (feed ? !order.includes(feed.via) : !probes.length) {
      race = true;
      return begin();
    }
    if (added.length) {
      step = 0;
      upAt = Infinity;
    }
    plan();
  }

  function forgive(name: Transport): void {
    demote(name, false);
    health[name] = well();
  }

  /** Another network, or this one again: what we held against a carrier may be over. */
  function network(): void {
    const soon = now + random * t.spread;
    ALL.forEach(forgive);
    race = true;
    step = 0;
    if (phase === "waiting" && !ordered) retryAt = Math.min(retryAt, soon);
    if (feed && suspect) feed.lapses = Math.min(feed.lapses, soon);
    suspect = false;
    plan();
  }
}
