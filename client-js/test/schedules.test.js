import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../.build/index.js";
import { World, dice } from "./world.js";

const ALL = ["websocket", "sse", "poll"];
const SCHEDULES = Number(process.env.SCHEDULES ?? 1500);
const first = Number(process.env.SEED ?? 1);

/** Reads a channel, now slowly, now quickly, and checks each event against the log: none lost without a gap, none twice, all in order. */
class Oracle {
  /** Unknown until the first event: the log may have been trimmed before we came. */
  last = undefined;
  gaps = 0;

  constructor(world, name) {
    Object.assign(this, { world, name });
  }

  see(event) {
    assert.equal(event.channel, this.name);
    const number = event.data.n;
    assert.equal(event.position, `1.${number}`);
    this.last ??= event.gap ? Number(event.gap.from.slice(2)) : number - 1;
    if (event.gap) {
      this.gaps++;
      assert.equal(event.gap.from, `1.${this.last}`, "a gap begins where we were");
      this.last = Number(event.gap.to.slice(2));
    }
    assert.equal(number, this.last + 1, `after ${this.last} comes ${number}`);
    this.last = number;
  }
}

/** What was acknowledged is in the log once, in the order of its producer and not after its position; what was refused is not. */
function checkMail(world, { sent, told }) {
  for (const channel of ["x", "y"]) {
    const log = world.channel(channel).events.map(({ data }) => data.id);
    assert.deepEqual(log, [...new Set(log)].sort((a, b) => a - b), `once and in order: ${log}`);
    sent.forEach((name, id) => {
      if (name !== channel) return;
      const at = log.indexOf(id);
      if (typeof told[id] === "number") assert.ok(at >= 0 && at < told[id], `message ${id} was acknowledged`);
      else if (["invalid", "forbidden"].includes(told[id])) assert.equal(at, -1, `message ${id} was refused`);
      else assert.equal(told[id], "unknown", `message ${id}`);
    });
  }
}

/** A client, its readers, and everything that can go wrong, by one seed. */
async function schedule(seed) {
  const world = new World(seed);
  const random = dice(seed ^ 0x5eed);
  const pick = (list) => list[Math.floor(random() * list.length)];
  const gifts = dice(seed ^ 0x91f7);
  world.latency = () => 1 + random() * (random() < 0.1 ? 2000 : 120);
  world.heartbeat = pick([1000, 5000, 25_000]);
  world.swallow = () => !calm && random() < 0.05;
  // (Nobody remembers refusals: of a request that was doubled, one copy may be refused and the other appended.)
  const doubling = random() < 0.5;
  world.doubled = () => doubling && random() < 0.2;
  world.judge = ({ messages }) => {
    if (messages.some(({ data }) => data.bad)) return { error: { code: "invalid", class: "never" } };
    if (!calm && !doubling && random() < 0.05) return { error: { code: "forbidden", class: "never" } };
    if (!calm && random() < 0.1) return { retry: { code: "unavailable", class: "later", after: 500 }, tried: random() < 0.5 };
  };
  const names = ["a", "b", "c"];
  const append = (name) => world.append(name, { n: world.channel(name).events.length + 1, text: "ü€😀".repeat(Math.floor(random() * 4)) });
  for (const name of names) for (let n = 0; n < random() * 5; n++) append(name);

  const client = connect("/realtime", { env: world.env(), buffer: pick([1, 3, 50, 1024]), timing: { upward: [3000, 10_000], memory: 20_000, publish: 2000 }, transports: pick([ALL, ALL, ["sse", "poll"], ["poll"], ["websocket"], ["sse"]]) });
  const readers = [];
  const problems = [];
  let calm = false;

  async function follow(name) {
    const oracle = new Oracle(world, name);
    const room = client.channel(name, { after: "earliest" });
    room.onGap(() => {});
    readers.push(oracle);
    try {
      for (;;) {
        // Leaves now and then, and comes back to the same handle: its thread goes on.
        for await (const event of room) {
          oracle.see(event);
          if (!calm && random() < 0.3) await new Promise((done) => world.clock.setTimeout(done, random() * 500));
          if (!calm && random() < 0.03) break;
        }
        if (client.state.name === "closed") return;
      }
    } catch (error) {
      problems.push(error);
    }
  }
  const callbacks = (name) => {
    const oracle = new Oracle(world, name);
    readers.push(oracle);
    const room = client.channel(name, { after: "earliest" });
    room.onGap(() => {});
    const see = (event) => {
      try {
        oracle.see(event);
      } catch (error) {
        problems.push(error);
      }
    };
    let stop = room.subscribe(see);
    return () => {
      stop();
      stop = room.subscribe(see);
    };
  };

  const mail = { sent: [], told: [] };
  function publish() {
    const channel = pick(["x", "y"]);
    const id = mail.sent.push(channel) - 1;
    const bad = random() < 0.1;
    client.channel(channel).publish({ id, bad }).then(
      ({ position }) => (mail.told[id] = Number(position.slice(2))),
      (error) => (mail.told[id] = error.code),
    );
  }

  follow("a");
  const flip = random() < 0.5 ? callbacks("b") : (follow("b"), () => {});
  if (random() < 0.3) callbacks("a");

  for (let step = 0; step < 25; step++) {
    const what = random();
    if (what < 0.45) append(pick(names));
    else if (what < 0.55) for (let n = 0; n < 10; n++) append(pick(names));
    else if (what < 0.7) world.cut(() => random() < 0.7);
    else if (what < 0.78) world.network[pick(ALL)] = pick(["ok", "ok", "refuse", "hang", "buffer"]);
    else if (what < 0.84) client.transports = ALL.filter(() => random() < 0.6);
    else if (what < 0.87) flip();
    else if (what < 0.89) world.trim(pick(names));
    else if (what < 0.91) world.page(pick(["offline", "online", "visibilitychange"]));
    else if (what < 0.93) {
      world.page("pagehide", { persisted: random() < 0.5 });
      await world.clock.pass(random() * 3000);
      world.page("pageshow", { persisted: true });
    } else if (what < 0.96) client.channel("c").subscribe(() => {}, { signal: AbortSignal.abort() });
    else for (const { line } of [...world.connections]) line?.goodbye?.({ code: "shutdown", class: pick(["now", "later"]), after: 300 });
    if (gifts() < 0.2) for (const { line } of [...world.connections]) if (line && !line.hello.probe) (line.give(names[Math.floor(gifts() * 3)]), line.flush());
    if (random() < 0.4) for (let n = 0; n < random() * 4; n++) publish();
    if (random() < 0.1) world.network.up = pick(["ok", "ok", "refuse", "hang"]);
    await world.clock.pass(random() * pick([10, 300, 3000]));
  }
  // The network heals: everything arrives.
  calm = true;
  for (const name of [...ALL, "up"]) world.network[name] = "ok";
  client.transports = ALL;
  await world.clock.pass(130_000);
  for (const name of names) append(name);
  await world.clock.pass(10_000);
  for (const reader of readers) {
    const { length } = world.channel(reader.name).events;
    assert.equal(reader.last, length, `all of ${reader.name} arrived (${JSON.stringify(client.state)})`);
  }
  checkMail(world, mail);
  client.close();
  await world.clock.pass(3000);
  assert.deepEqual(problems, []);
  assert.deepEqual(world.breaches, []);
  assert.deepEqual([...world.connections].filter(({ keepalive }) => !keepalive), [], "nothing is left open but a goodbye that the network holds");
  assert.deepEqual(world.warnings, []);
  return readers.reduce((sum, reader) => sum + reader.last, 0);
}

test(`${SCHEDULES} random schedules: nothing lost, repeated or out of order`, async (t) => {
  let events = 0;
  for (let seed = first; seed < first + SCHEDULES; seed++) {
    try {
      events += await schedule(seed);
    } catch (error) {
      error.message = `SEED=${seed}: ${error.message}`;
      throw error;
    }
  }
  t.diagnostic(`${events} events checked`);
});
