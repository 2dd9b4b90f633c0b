import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultTiming as timing } from "../.build/env.js";
import { ThroughlineError } from "../.build/error.js";
import { policy } from "../.build/policy.js";
import { dice } from "./world.js";

const ALL = ["websocket", "sse", "poll"];
const MINUTE = 60_000;
const MODELS = Number(process.env.MODELS ?? 5000);

/** Tells a policy what happened. */
function happen(it, { type, line, heartbeat, error, demoted, transports }, now, random) {
  it.moment(now, random);
  const calls = {
    start: () => it.start(demoted), open: () => it.open(line, heartbeat), heard: () => it.heard(line), end: () => it.end(line, error),
    allow: () => it.allow(transports), offline: () => it.suspected(),
  };
  (calls[type] ?? it[type])();
}

/** A network of carriers that behave in ways of their own, and the policy in it. Checks what must hold at every step. */
class Model {
  now = 1_000_000;
  agenda = [];
  order = ALL;
  effects = [];
  policy = policy(ALL, timing, {
    open: (line, transport, probe, over) => this.effects.push({ type: "open", line, transport, probe, over }),
    close: (line) => this.effects.push({ type: "close", line }),
    remember: (transport, demoted) => this.effects.push({ type: "remember", transport, demoted }),
  });
  lines = new Map(); // what is open: id → {transport, probe}
  opens = [];
  demotions = [];
  delayUntil = 0;
  ways = Object.fromEntries(ALL.map((name) => [name, { kind: "ok" }]));
  outage = false;
  calls = 0;

  constructor(seed) {
    this.random = dice(seed);
    this.lag = 5 + this.random() * 300;
  }

  pick(list) {
    return list[Math.floor(this.random() * list.length)];
  }

  at(after, call) {
    this.agenda.push({ at: this.now + after, call });
  }

  tell(event) {
    this.calls++;
    happen(this.policy, event, this.now, this.random());
    for (const effect of this.effects.splice(0)) this.perform(effect, event);
    const feeding = [...this.lines.values()].filter((line) => !line.probe);
    assert.ok(feeding.length <= 1, "one line feeds");
    assert.ok(this.policy.view().name !== "online" || feeding.length === 1);
    for (const [, line] of this.lines) assert.ok(this.order.includes(line.transport), "a forbidden carrier is left");
  }

  perform(effect) {
    if (effect.type === "remember") return void (effect.demoted && this.demotions.push({ at: this.now, transport: effect.transport }));
    if (effect.type === "close") return void this.lines.delete(effect.line);
    assert.ok(this.now >= this.delayUntil, "nothing is opened while a server's delay runs");
    if (!effect.probe) for (const line of this.lines.values()) assert.ok(line.probe, "the old line is left before the new one opens");
    if (effect.over !== undefined) this.lines.delete(effect.over);
    this.opens.push(this.now);
    this.lines.set(effect.line, { transport: effect.transport, probe: effect.probe });
    this.open(effect.line, effect.transport, effect.probe);
  }

  /** Plays a new line. */
  open(id, transport, probe) {
    const hb = 50_000;
    const alive = () => this.lines.has(id);
    const end = (error = new ThroughlineError("network", "now", "cut"), spoken = false) => {
      if (!alive()) return;
      // (A refused probe delays only the next probe.)
      if (spoken && error.class === "later" && this.policy.view().name !== "online") this.delayUntil = this.now + error.after;
      this.tell({ type: "end", line: id, error, spoken });
    };
    this.lines.get(id).end = end;
    this.at(this.lag * 2, () => {
      const way = this.outage ? { kind: this.outage } : this.ways[transport];
      if (!alive() || way.kind === "hang") return;
      if (way.kind === "refuse") return end();
      if (way.kind === "busy") return end(new ThroughlineError("busy", "later", "busy", 1000 + this.random() * 20_000), true);
      this.tell({ type: "open", line: id, heartbeat: hb });
      if (way.kind === "mute") return void (this.lines.has(id) && transport === "poll" && end());
      if (way.kind === "kill") this.at(way.after, end);
      const beat = () => {
        if (!alive() || this.lines.get(id).silent) return;
        this.tell({ type: "heard", line: id });
        if (!probe) this.at(hb, beat);
      };
      this.at(200, beat);
    });
  }

  /** The network changes its ways: lines that can't be any more end, or go silent. */
  change(ways, outage = false) {
    Object.assign(this.ways, ways);
    this.outage = outage;
    for (const line of [...this.lines.values()]) {
      const { kind } = outage ? { kind: outage } : this.ways[line.transport];
      if (kind === "refuse" || kind === "kill") this.at(this.random() * 50, () => line.end());
      if (kind === "hang" || kind === "mute") line.silent = true;
    }
  }

  run(until) {
    for (;;) {
      const due = Math.max(this.policy.deadline(), this.now);
      let next = { at: due, call: () => this.tell({ type: "tick" }) };
      let index = -1;
      this.agenda.forEach((item, i) => {
        if (item.at < next.at || (item.at === next.at && index < 0)) [next, index] = [item, i];
      });
      if (next.at > until) break;
      if (index >= 0) this.agenda.splice(index, 1);
      this.now = next.at;
      next.call();
      assert.ok(this.calls < 50_000, "a hot loop");
    }
    this.now = until;
  }

  most(window) {
    let most = 0;
    for (let from = 0, to = 0; to < this.opens.length; to++) {
      while (this.opens[to] - this.opens[from] > window) from++;
      most = Math.max(most, to - from + 1);
    }
    return most;
  }
}

function each(count, body) {
  for (let seed = 1; seed <= count; seed++) {
    const model = new Model(seed);
    try {
      body(model, seed);
    } catch (error) {
      error.message = `seed ${seed}: ${error.message}`;
      throw error;
    }
  }
}

const bad = (m) => m.pick([{ kind: "refuse" }, { kind: "hang" }, { kind: "mute" }, { kind: "kill", after: m.random() * 4000 }]);

test(`in ${MODELS} random networks it finds what works, goes up again, and never spins`, (t) => {
  let worst = 0;
  each(MODELS, (m) => {
    m.tell({ type: "start", demoted: m.random() < 0.2 ? [m.pick(ALL)] : [] });
    const phases = 1 + Math.floor(m.random() * 6);
    let quiet = true; // nothing was done from outside that may cause attempts
    for (let n = 0; n < phases; n++) {
      const what = m.random();
      if (what < 0.5) m.change(Object.fromEntries(ALL.map((name) => [name, m.random() < 0.5 ? { kind: "ok" } : bad(m)])));
      else if (what < 0.65) m.change({}, m.pick(["refuse", "hang"]));
      else if (what < 0.75) m.change({}, "busy");
      else if (what < 0.9) {
        m.order = ALL.filter(() => m.random() < 0.6);
        for (const [id, line] of m.lines) if (!m.order.includes(line.transport)) line.leaving = id;
        tellAllow(m);
        quiet = false;
      } else {
        m.tell({ type: m.pick(["offline", "network", "sleep", "wake"]) });
        quiet = false;
      }
      m.run(m.now + m.pick([500, 5_000, 30_000, 2 * MINUTE]));
    }
    // Now the network stays as it is, and at least one carrier works.
    m.order = ALL.filter(() => m.random() < 0.8);
    if (!m.order.length) m.order = ["poll"];
    tellAllow(m);
    m.tell({ type: "wake" });
    const ways = Object.fromEntries(ALL.map((name) => [name, m.random() < 0.5 ? { kind: "ok" } : bad(m)]));
    const works = m.pick(m.order);
    ways[works] = { kind: "ok" };
    m.change(ways);
    m.run(m.now + 5 * MINUTE);
    // (A carrier that lives for seconds only may be on trial just now.)
    if (m.policy.view().name !== "online") m.run(m.now + 30_000);
    const soon = m.policy.view();
    assert.equal(soon.name, "online", `after five minutes with a working ${works}: ${JSON.stringify({ soon, ways, order: m.order })}`);
    m.run(m.now + 33 * MINUTE);
    const best = m.order.find((name) => ways[name].kind === "ok");
    if (m.policy.view().transport !== best) m.run(m.now + 30_000);
    const late = m.policy.view();
    assert.deepEqual(late, { name: "online", transport: best }, JSON.stringify({ ways, order: m.order }));
    if (quiet) worst = Math.max(worst, m.most(MINUTE));
    assert.ok(m.most(MINUTE) <= 80, `${m.most(MINUTE)} attempts in a minute`);
  });
  t.diagnostic(`most attempts in any minute: ${worst}`);
});

function tellAllow(m) {
  m.tell({ type: "allow", transports: m.order });
}

test("in outages nobody is demoted", () => {
  each(2000, (m) => {
    m.tell({ type: "start", demoted: [] });
    for (let n = 0; n < 5; n++) {
      m.run(m.now + 20_000 + m.random() * MINUTE);
      m.change({}, m.pick(["refuse", "hang", "busy"]));
      m.run(m.now + m.random() * 3 * MINUTE);
      m.change({});
    }
    m.run(m.now + 2 * MINUTE);
    assert.deepEqual(m.demotions, []);
    assert.deepEqual(m.policy.view(), { name: "online", transport: "websocket" });
  });
});

test("a carrier that is killed at once, again and again, is demoted", () => {
  each(300, (m) => {
    m.ways.websocket = { kind: "kill", after: 250 + m.random() * 4000 };
    m.tell({ type: "start", demoted: [] });
    m.run(m.now + MINUTE);
    assert.deepEqual(m.demotions.map((d) => d.transport), ["websocket"]);
    assert.deepEqual(m.policy.view(), { name: "online", transport: "sse" });
  });
});

test("once it is demoted it is tried again, and disturbs nobody, until it lives", () => {
  each(300, (m) => {
    m.ways.websocket = { kind: "kill", after: 150 + m.random() * 4840 };
    m.tell({ type: "start", demoted: [] });
    m.run(m.now + MINUTE);
    const feed = m.policy.feed();
    const tries = m.opens.length;
    m.run(m.now + 60 * MINUTE);
    assert.equal(m.policy.feed(), feed, `killed after ${m.ways.websocket.after} ms`);
    assert.ok(m.opens.length - tries >= 5);
    m.ways.websocket = { kind: "ok" };
    m.run(m.now + 16 * MINUTE);
    assert.deepEqual(m.policy.view(), { name: "online", transport: "websocket" });
  });
});

test("first contact on a good network opens one line and no more", () => {
  each(300, (m) => {
    m.lag = m.random() * 250;
    m.tell({ type: "start", demoted: [] });
    m.run(m.now + 10 * MINUTE);
    assert.equal(m.opens.length, 1);
  });
});

test("first contact: the second joins after max(stagger, 3 × the last round trip), the third later, and the first to prove itself feeds", () => {
  const m = new Model(1);
  m.lag = 10;
  m.ways.websocket = { kind: "hang" };
  m.ways.sse = { kind: "mute" };
  const start = m.now;
  m.tell({ type: "start", demoted: [] });
  m.run(m.now + 2 * MINUTE);
  assert.deepEqual(m.opens.slice(0, 4).map((at) => at - start), [0, 800, 2300, 2320], "websocket, sse, poll, and the channels over poll");
  assert.deepEqual(m.demotions.map((d) => d.transport), ["websocket", "sse"]);
});

test("open is not works: only a frame 100 ms after open proves a line (P6.6)", () => {
  const it = policy(ALL, timing, { open() {}, close() {}, remember() {} });
  const step = (event, now) => happen(it, event, now, 0);
  step({ type: "start", demoted: [] }, 1000);
  const line = it.feed();
  step({ type: "open", line, heartbeat: 25_000 }, 1100);
  step({ type: "heard", line }, 1199);
  assert.equal(it.view().name, "connecting");
  step({ type: "heard", line }, 1200);
  assert.deepEqual(it.view(), { name: "online", transport: "websocket" });
  assert.equal(it.deadline(), 1200 + 50_000);
  step({ type: "heard", line }, 9000);
  assert.equal(it.deadline(), 9000 + 50_000);
});

test("asleep it does nothing, closed it is over", () => {
  const m = new Model(1);
  m.tell({ type: "start", demoted: [] });
  m.run(m.now + 1000);
  m.tell({ type: "sleep" });
  assert.equal(m.lines.size, 0);
  assert.equal(m.policy.deadline(), Infinity);
  m.tell({ type: "wake" });
  m.run(m.now + 1000);
  assert.equal(m.policy.view().name, "online");
  m.tell({ type: "close" });
  m.tell({ type: "start", demoted: [] });
  m.tell({ type: "network" });
  assert.equal(m.lines.size, 0);
  assert.equal(m.policy.view().name, "closed");
});
