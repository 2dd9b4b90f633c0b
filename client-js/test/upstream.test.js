import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, ThroughlineError } from "../.build/index.js";
import { World, dice } from "./world.js";

function setup(options = {}, seed = 1) {
  const world = new World(seed);
  const client = connect("/realtime", { ...options, env: world.env(options.env) });
  return { world, client, room: client.channel("room"), pass: (ms) => world.clock.pass(ms) };
}

const log = (world, name = "room") => world.channel(name).events.map((event) => event.data);
const code = (promise) => promise.then((value) => value, (error) => error.code);
const batches = (world) => world.said.filter(({ frame }) => frame.publish).map(({ by, frame }) => [by, frame.publish.frames.map(({ seq, messages, repeat }) => `${seq}${"abcdefghij"[messages.length - 1] ?? "+"}${repeat ? "!" : ""}`).join(" ")]);
const denied = (status, body) => ({ status, body: { error: body } });

test("P9.2: order, kinds, positions; without a line it posts", async () => {
  const { world, client, room, pass } = setup();
  const all = [room.publish({ n: 1 }), room.publish("json"), room.publish("text", { text: true }), room.publish(new Uint8Array([1, 2]), { type: "bytes" }), room.publish(new Blob(["AB"])), room.publish(null)];
  await pass(1000);
  assert.deepEqual(await Promise.all(all), all.map((_, n) => ({ position: n < 4 ? "1.4" : "1.6", duplicate: false })), "while a Blob is read, what comes after it waits");
  assert.equal(client.state.name, "idle", "no line is opened for a publish");
  const bodies = world.requests.map(({ route, body }) => [route, JSON.parse(body)]);
  assert.equal(bodies.length, 2);
  const [[route, body], [, second]] = bodies;
  assert.equal(route, "up");
  assert.deepEqual(body.up, { version: 1, token: "" });
  assert.match(body.publish.producer, /^[0-9a-f]{32}$/);
  assert.deepEqual(body.publish.frames, [{ seq: 1, channel: "room", messages: [
    { data: { n: 1 } }, { data: "json" }, { data: "text", encoding: "text" }, { type: "bytes", data: "AQI=", encoding: "base64" },
  ] }]);
  assert.deepEqual(second.publish.frames, [{ seq: 2, channel: "room", messages: [{ data: "QUI=", encoding: "base64" }, { data: null }] }]);
  client.close();
});

test("a message is what it was when it was published; what JSON can't say is refused", async () => {
  const { world, client, room, pass } = setup();
  const data = { n: 1 };
  const result = room.publish(data);
  data.n = 2;
  await assert.rejects(room.publish(undefined), { code: "invalid", class: "never" });
  await assert.rejects(room.publish(1n), { code: "invalid" });
  await pass(100);
  await result;
  assert.deepEqual(log(world), [{ n: 1 }]);
  client.close();
});

test("one batch at a time: neighbours share a frame, a channel has one frame", async () => {
  const { world, client, pass } = setup();
  const [a, b] = [client.channel("a"), client.channel("b")];
  const results = [a.publish(1), a.publish(2), b.publish(3), a.publish(4), b.publish(5)];
  await pass(1000);
  await Promise.all(results);
  assert.deepEqual(batches(world), [["request", "1b 2a"], ["request", "3a 4a"]]);
  assert.deepEqual([log(world, "a"), log(world, "b")], [[1, 2, 4], [3, 5]]);
  const many = Array.from({ length: 250 }, (_, n) => a.publish(n));
  await pass(1000);
  await Promise.all(many);
  assert.deepEqual(batches(world).slice(2).map(([, text]) => text), ["5+", "6+", "7+"]);
  const channels = Array.from({ length: 70 }, (_, n) => client.channel(`c${n}`).publish(n));
  await pass(1000);
  await Promise.all(channels);
  assert.deepEqual(batches(world).slice(5).map(([, text]) => text.split(" ").length), [64, 6]);
  const large = Array.from({ length: 4 }, () => a.publish("x".repeat(9000)));
  await pass(1000);
  await Promise.all(large);
  assert.deepEqual(batches(world).slice(7).map(([, text]) => text.slice(-1)), ["a", "a", "a", "a"]);
  assert.deepEqual(world.breaches, []);
  client.close();
});

test("over the WebSocket that feeds, if the frame is small enough", async () => {
  const { world, client, room, pass } = setup();
  client.connect();
  await pass(1000);
  const small = room.publish("small");
  await pass(100);
  assert.equal((await small).position, "1.1");
  const large = room.publish("ü".repeat(40_000));
  await pass(100);
  await large;
  assert.deepEqual(batches(world).map(([by]) => by), ["websocket", "request"]);
  assert.equal(world.said[1].head.token, "token-1");
  client.close();
});

test("P9.3: a line that ends with a batch under way: it is a repeat on the next", async () => {
  const { world, client, room, pass } = setup();
  client.connect();
  await pass(1000);
  world.swallow = () => true;
  const result = room.publish(1);
  await pass(100);
  world.swallow = () => false;
  world.cut();
  await pass(5000);
  assert.deepEqual(await result, { position: "1.1", duplicate: true });
  assert.deepEqual(log(world), [1]);
  assert.equal(batches(world)[1][1], "1a!");
  client.close();
});

test("P9.3: after a timeout the next attempt goes by request, until the line has answered or ended", async () => {
  const { world, client, room, pass } = setup({ timing: { publish: 3000 } });
  client.connect();
  await pass(1000);
  world.upstream = (frame, by) => (by === "websocket" ? null : undefined);
  const result = room.publish(1);
  await pass(5000);
  assert.deepEqual(await result, { position: "1.1", duplicate: false });
  const next = room.publish(2);
  await pass(500);
  assert.equal((await next).position, "1.2");
  assert.deepEqual(batches(world), [["websocket", "1a"], ["request", "1a!"], ["request", "2a"]]);
  // The late answer comes: it is ignored, and the line is free.
  world.upstream = () => undefined;
  const [{ line }] = world.connections;
  line.publishing = false;
  line.send({ published: [{ seq: 1, position: "1.999" }] });
  await pass(100);
  const third = room.publish(3);
  await pass(100);
  assert.equal((await third).position, "1.3");
  assert.equal(batches(world)[3][0], "websocket");
  assert.deepEqual(world.breaches, []);
  client.close();
});

test("P9.5: what stops a batch is tried again, what comes after keeps its marks", async () => {
  const { world, client, pass } = setup();
  let round = 0;
  world.judge = ({ channel }) => (round === 0 && channel === "b" ? { retry: { code: "unavailable", class: "later", after: 5000 }, tried: true } : undefined);
  const results = ["a", "b", "c"].map((name) => client.channel(name).publish(name));
  const settled = [];
  results.forEach((result, n) => result.then(() => settled.push(n)));
  await pass(1000);
  assert.deepEqual(settled, [0]);
  round = 1;
  await pass(3900);
  assert.equal(batches(world).length, 1, "not before the delay");
  await pass(2000);
  assert.deepEqual(settled, [0, 1, 2]);
  assert.deepEqual(batches(world).map(([, text]) => text), ["1a 2a 3a", "2a! 3a"]);
  client.close();
});

test("P9.5: without tried it is no repeat, and what was one stays one", async () => {
  const { world, client, pass } = setup({ timing: { publish: 2000 } });
  world.network.up = "hang";
  const results = ["a", "b"].map((name) => code(client.channel(name).publish(name)));
  await pass(2100);
  world.network.up = "ok";
  world.judge = () => ({ retry: { code: "busy", class: "later", after: 100 } });
  await pass(2000);
  world.judge = () => ({ error: { code: "forbidden", class: "never" } });
  await pass(60_000);
  assert.deepEqual(await Promise.all(results), ["unknown", "unknown"], "nobody knows what became of the first copies");
  world.judge = () => ({ retry: { code: "busy", class: "later", after: 100 } });
  const fresh = code(client.channel("c").publish("c"));
  await pass(1000);
  world.judge = () => ({ error: { code: "forbidden", class: "never" } });
  await pass(60_000);
  assert.equal(await fresh, "forbidden", "the server said that nothing was done");
  client.close();
});

test("refusals for good reject, later frames go on", async () => {
  const { world, client, pass } = setup();
  world.judge = ({ channel }) => (channel === "b" ? { error: { code: "forbidden", class: "never", message: "no" } } : undefined);
  const results = ["a", "b", "c"].map((name) => client.channel(name).publish(name));
  const error = results[1].catch((e) => e);
  await pass(1000);
  assert.ok((await error) instanceof ThroughlineError);
  assert.deepEqual([(await error).code, (await error).message], ["forbidden", "no"]);
  await results[2];
  client.close();
});

test("one bad message of a frame of several is refused alone, and the order holds", async () => {
  const { world, client, room, pass } = setup();
  for (const wrong of ["invalid", "too_large", "forbidden", "bad_row"]) {
    const start = log(world).length;
    world.judge = ({ messages }) => (messages.some(({ data }) => data === "bad") ? { error: { code: wrong, class: "never" } } : undefined);
    const results = [1, "bad", 2].map((data) => code(room.publish(data)));
    await pass(0);
    results.push(code(room.publish(3)));
    await pass(2000);
    assert.deepEqual((await Promise.all(results)).map((r) => r.position ?? r), [`1.${start + 1}`, wrong, `1.${start + 2}`, `1.${start + 3}`]);
    assert.deepEqual(log(world).slice(start), [1, 2, 3]);
  }
  world.judge = () => ({ error: { code: "forbidden", class: "never" } });
  const before = world.said.length;
  const all = [1, 2].map((data) => code(room.publish(data)));
  await pass(1000);
  assert.deepEqual(await Promise.all(all), ["forbidden", "forbidden"]);
  assert.equal(world.said.length, before + 3, "together, then each by itself");
  client.close();
});

test("one bad message of many is found in few rounds, each is told its own reason, and the order holds", async () => {
  const { world, client, pass } = setup();
  const [room, other] = [client.channel("room"), client.channel("other")];
  const judge = (bad) => (world.judge = ({ messages }) => {
    const wrong = messages.find(({ data }) => bad(data));
    return wrong && { error: { code: `bad_${wrong.data}`, class: "never" } };
  });
  const rounds = () => batches(world).length;
  judge((n) => n === 37);
  const many = Array.from({ length: 100 }, (_, n) => code(room.publish(n)));
  const beside = other.publish("beside");
  await pass(0);
  many.push(code(room.publish(100)));
  await pass(3000);
  const all = Array.from({ length: 101 }, (_, n) => n);
  assert.deepEqual((await Promise.all(many)).map((r) => (r.position ? "done" : r)), all.map((n) => (n === 37 ? "bad_37" : "done")));
  assert.deepEqual(log(world), all.filter((n) => n !== 37));
  assert.deepEqual(log(world, "other"), ["beside"]);
  await beside;
  assert.ok(rounds() <= 1 + 10 + 10 + 1, `${rounds()} rounds`);
  // All of them: hardly more than one for each.
  const before = rounds();
  judge(() => true);
  const none = Array.from({ length: 100 }, (_, n) => code(room.publish(n)));
  await pass(5000);
  assert.deepEqual(await Promise.all(none), Array.from({ length: 100 }, (_, n) => `bad_${n}`));
  assert.ok(rounds() - before <= 111, `${rounds() - before} rounds`);
  // Any of them, of pieces of any size.
  for (let seed = 1; seed <= 200; seed++) {
    const random = dice(seed);
    const start = log(world).length;
    const wrong = new Set();
    const results = [];
    judge((n) => wrong.has(n));
    for (let n = 0; n < 1 + random() * 30; n++) {
      if (random() < 0.2) wrong.add(n);
      if (random() < 0.1) await pass(random() * 30);
      results.push(code(room.publish(n)));
    }
    await pass(3000);
    assert.deepEqual((await Promise.all(results)).map((r) => (r.position ? "done" : r)), results.map((_, n) => (wrong.has(n) ? `bad_${n}` : "done")), `seed ${seed}`);
    assert.deepEqual(log(world).slice(start), results.map((_, n) => n).filter((n) => !wrong.has(n)), `seed ${seed}`);
  }
  assert.deepEqual(world.breaches, []);
  client.close();
});

test("refusals of the request: spoken ones tell that nothing was done, those of a proxy do not", async () => {
  const { world, client, room, pass } = setup();
  const first = async (answer, then) => {
    let times = 0;
    world.said.length = 0;
    world.upstream = () => (times++ ? (world.upstream = then ? () => then : () => undefined)() : answer);
    const result = code(room.publish(1));
    await pass(60_000);
    return [(await result).position ? "done" : await result, ...batches(world).map(([, text]) => text.slice(-1))];
  };
  const no = denied(401, { code: "unauthorized", class: "never" });
  assert.deepEqual(await first(denied(503, { code: "busy", class: "later", after: 5000 })), ["done", "a", "a"]);
  assert.deepEqual(await first({ status: 502, body: "<html>" }), ["done", "a", "!"]);
  assert.deepEqual(await first({ status: 503, body: "<html>", headers: { "Retry-After": "3" } }), ["done", "a", "!"]);
  assert.deepEqual(await first({ status: 200, body: { hotel: "log in" } }), ["done", "a", "!"]);
  assert.deepEqual(await first({ status: 200, body: { published: [] } }), ["done", "a", "!"]);
  assert.deepEqual(await first({ status: 413, body: "<html>" }), ["refused", "a"]);
  assert.deepEqual(await first(no), ["unauthorized", "a"]);
  assert.deepEqual(await first({ status: 502, body: "<html>" }, no), ["unknown", "a", "!"]);
  world.upstream = () => undefined;
  client.close();
});

test("later means later", async () => {
  const { world, client, room, pass } = setup();
  world.upstream = () => denied(503, { code: "busy", class: "later", after: 5000 });
  const published = room.publish(1);
  await pass(4900);
  assert.equal(world.requests.length, 1);
  world.upstream = () => undefined;
  await pass(1000);
  assert.equal((await published).position, "1.1");
  client.close();
});

test("P9.6: what the log may have forgotten is unknown and not repeated, by either clock", async () => {
  for (const told of [false, true]) {
    for (const clock of ["now", "steady"]) {
      const world = new World();
      let stopped;
      const stop = clock === "now" ? "steady" : "now";
      const env = world.env();
      const client = connect("/realtime", { env: { ...env, [stop]: () => stopped ?? world.clock.now } });
      if (told) client.connect();
      await world.clock.pass(1000);
      client.transports = [];
      stopped = world.clock.now;
      world.network.up = "hang";
      const result = code(client.channel("room").publish(1));
      let over = false;
      result.then(() => (over = true));
      const last = told ? 540_000 : 270_000; // of the ten minutes that open told, else of five
      await world.clock.pass(last - 70_000);
      assert.ok(!over);
      await world.clock.pass(140_000);
      assert.equal(await result, "unknown");
      assert.ok(world.requests.filter(({ route }) => route === "up").every(({ at }) => at < stopped + last + 1000));
      client.close();
    }
  }
});

test("P9.6: what was only put off is not unknown: its age counts from when it may have been tried", async () => {
  const later = { code: "slow_down", class: "later", after: 20_000 };
  const put = {
    retry: (world, on) => (world.judge = () => (on ? { retry: later } : undefined)),
    refused: (world, on) => (world.upstream = () => (on ? denied(503, later) : undefined)),
  };
  for (const off of Object.values(put)) {
    const { world, client, room, pass } = setup();
    off(world, true);
    const done = code(room.publish(1));
    await pass(700_000); // longer than anybody remembers
    off(world, false);
    await pass(60_000);
    assert.equal((await done).position, "1.1");
    // Put off, then lost: from there on it counts.
    off(world, true);
    const lost = code(room.publish(2));
    let over = false;
    lost.then(() => (over = true));
    await pass(700_000);
    off(world, false);
    world.network.up = "hang";
    await pass(240_000);
    assert.ok(!over, "for five minutes");
    await pass(120_000);
    assert.equal(await lost, "unknown");
    // Lost, and put off ever since: the first try may have been one.
    world.network.up = "hang";
    const tried = code(room.publish(3));
    await pass(20_000);
    world.network.up = "ok";
    off(world, true);
    await pass(400_000);
    assert.equal(await tried, "unknown");
    client.close();
  }
});

test("a batch may be awaited for longer than a timer can wait", async () => {
  const { world, client, room, pass } = setup({ timing: { publish: Infinity } });
  const { setTimeout } = world.clock;
  world.clock.setTimeout = (call, ms) => setTimeout.call(world.clock, call, ms > 2 ** 31 - 1 ? 1 : ms); // as browsers have it
  world.latency = () => 5000;
  const result = room.publish(1);
  await pass(11_000);
  assert.deepEqual([await result, batches(world).length], [{ position: "1.1", duplicate: false }, 1]);
  client.close();
});

test("P9.6: what waits behind a batch that is given up goes on", async () => {
  const { world, client, room, pass } = setup();
  world.network.up = "hang";
  const first = code(room.publish(1));
  await pass(100);
  const second = code(room.publish(2));
  await pass(400_000);
  world.network.up = "ok";
  world.cut();
  await pass(60_000);
  assert.equal(await first, "unknown");
  assert.equal((await second).position, "1.1");
  client.close();
});

test("a signal removes what waits, and gives up what is under way, whose number holds", async () => {
  const { world, client, room, pass } = setup();
  world.network.up = "hang";
  const [one, two] = [new AbortController(), new AbortController()];
  const results = [code(room.publish(1, { signal: one.signal }))];
  await pass(100);
  results.push(code(room.publish(2, { signal: two.signal })), code(room.publish(3)));
  two.abort();
  one.abort();
  assert.deepEqual([await results[0], await results[1]], ["aborted", "aborted"]);
  assert.equal(await code(room.publish(4, { signal: one.signal })), "aborted");
  world.network.up = "ok";
  world.cut();
  await pass(2000);
  assert.equal((await results[2]).position, "1.2");
  assert.deepEqual(log(world), [1, 3], "the one under way went its way");
  client.close();
});

test("close rejects what waits and what is under way", async () => {
  const { world, client, room, pass } = setup();
  world.network.up = "hang";
  const results = [code(room.publish(1))];
  await pass(10);
  results.push(code(room.publish(2)));
  client.close();
  results.push(code(room.publish(3)));
  assert.deepEqual(await Promise.all(results), ["aborted", "aborted", "aborted"]);
  await pass(1000);
  assert.equal(world.connections.size, 0);
  assert.equal(world.clock.timers.size, 0);
});

test("the outbox has a bound", async () => {
  const { world, client, room, pass } = setup({ outbox: 3 });
  world.network.up = "hang";
  const results = [code(room.publish(0))];
  await pass(10);
  for (let n = 1; n < 5; n++) results.push(code(room.publish(n)));
  assert.equal(await results[4], "busy");
  world.network.up = "ok";
  world.cut();
  await pass(3000);
  assert.deepEqual(log(world), [0, 1, 2, 3]);
  client.close();
});

test("1,000 random schedules of lost requests and answers: each message once, in order", async () => {
  for (let seed = 1; seed <= 1000; seed++) {
    const { world, client, room, pass } = setup({ timing: { publish: 3000 }, transports: ["websocket", "poll"] }, seed);
    const random = dice(seed);
    world.latency = () => 1 + random() * 300;
    world.swallow = () => random() < 0.1;
    world.doubled = () => random() < 0.2;
    if (seed % 2) client.connect();
    const sent = [];
    const results = [];
    for (let n = 0; n < 8; n++) {
      sent.push(n);
      results.push(room.publish(n));
      await pass(random() * 200);
      if (random() < 0.5) world.cut();
      world.network.up = random() < 0.2 ? ["refuse", "hang"][n % 2] : "ok";
    }
    world.network.up = "ok";
    for (let n = 0; n < 5; n++) {
      await pass(random() * 400);
      world.cut();
    }
    world.swallow = () => false;
    await pass(120_000);
    await Promise.all(results);
    assert.deepEqual(log(world), sent, `seed ${seed}`);
    assert.deepEqual(world.breaches, [], `seed ${seed}`);
    client.close();
  }
});
