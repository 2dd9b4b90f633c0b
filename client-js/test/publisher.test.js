import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, ThroughlineError } from "../.build/index.js";
import { World, dice } from "./world.js";

function setup(options = {}, seed = 1) {
  const world = new World(seed);
  const client = connect("/realtime", { ...options, env: world.env(options.env) });
  return { world, client, room: client.channel("room"), pass: (ms) => world.clock.pass(ms) };
}

const log = (world) => world.channel("room").events.map((event) => event.data);

test("publishing: order, kinds, positions, one request at a time", async () => {
  const { world, room, pass } = setup();
  const all = [room.publish({ n: 1 }), room.publish("json"), room.publish("text", { text: true }), room.publish(new Uint8Array([1, 2]), { type: "bytes" })];
  await pass(1);
  assert.equal(world.requests.length, 1);
  await pass(1000);
  assert.deepEqual(await Promise.all(all), [1, 2, 3, 4].map((n) => ({ position: `1.${n}`, duplicate: false })));
  assert.deepEqual(world.requests.map(({ headers }) => [headers["Content-Type"], headers["Producer-Seq"]]), [
    ["application/json", "1"],
    ["application/json", "2"],
    ["text/plain;charset=utf-8", "3"],
    ["application/octet-stream", "4"],
  ]);
  const keys = new Set(world.requests.map(({ headers }) => headers["Idempotency-Key"]));
  assert.equal(keys.size, 1);
  assert.match([...keys][0], /^[0-9a-f]{32}$/);
  assert.equal(world.channel("room").events[3].type, "bytes");
});

test("what JSON can't say is refused at once", async () => {
  const { world, room } = setup();
  await assert.rejects(room.publish(undefined), { code: "invalid", class: "never" });
  assert.equal(world.requests.length, 0);
});

test("refusals for good reject, the next message goes on", async () => {
  const { world, room, pass } = setup();
  const { publish } = world;
  world.publish = () => ({ status: 403, body: { error: { code: "forbidden", class: "never", message: "no" } } });
  const refused = room.publish(1).catch((error) => error);
  await pass(100);
  const error = await refused;
  assert.ok(error instanceof ThroughlineError);
  assert.deepEqual([error.code, error.class, error.message], ["forbidden", "never", "no"]);
  world.publish = () => ({ status: 404, body: "<html>" });
  const lost = room.publish(2).catch((e) => e.code);
  await pass(100);
  assert.equal(await lost, "refused");
  world.publish = publish;
  const next = room.publish(3);
  await pass(100);
  assert.equal((await next).position, "1.1");
});

test("later means later", async () => {
  const { world, room, pass } = setup();
  const { publish } = world;
  world.publish = () => ({ status: 503, body: { error: { code: "busy", class: "later", after: 5000 } } });
  const published = room.publish(1);
  await pass(4900);
  assert.equal(world.requests.length, 1);
  world.publish = publish;
  await pass(1000);
  assert.equal((await published).position, "1.1");
});

test("a page of HTML with status 200 is no answer", async () => {
  const { world, room, pass } = setup();
  const { publish } = world;
  world.publish = () => ({ status: 200, body: { hotel: "please log in" } });
  const published = room.publish(1);
  await pass(100);
  world.publish = publish;
  await pass(5000);
  assert.equal((await published).duplicate, false);
});

test("a signal stops a message that waits, and one under way; others go on", async () => {
  const { world, room, pass } = setup();
  world.network.publish = "hang";
  const [one, two] = [new AbortController(), new AbortController()];
  const results = [room.publish(1, { signal: one.signal }), room.publish(2, { signal: two.signal }), room.publish(3)].map((p) => p.catch((e) => e.code));
  await pass(100);
  two.abort();
  assert.equal(await results[1], "aborted");
  world.network.publish = "ok";
  one.abort();
  assert.equal(await results[0], "aborted");
  await pass(1000);
  assert.equal((await results[2]).position, "1.1");
  assert.deepEqual(log(world), [3]);
});

test("close rejects what waits", async () => {
  const { world, client, room, pass } = setup();
  world.network.publish = "hang";
  const results = [room.publish(1), room.publish(2)].map((p) => p.catch((e) => e.code));
  await pass(10);
  client.close();
  assert.deepEqual(await Promise.all(results), ["aborted", "aborted"]);
});

test("when the log may have forgotten us, the outcome is unknown and nothing is repeated", async () => {
  const { world, room, pass } = setup();
  await Promise.all([room.publish(0), pass(100)]);
  world.network.publish = "hang";
  const result = room.publish(1).catch((e) => e.code);
  await pass(700_000);
  assert.equal(await result, "unknown");
});

test("1,000 random schedules of lost requests and answers: each message once, in order", async () => {
  for (let seed = 1; seed <= 1000; seed++) {
    const { world, client, room, pass } = setup({ timing: { publish: 3000 } }, seed);
    const random = dice(seed);
    world.latency = () => 1 + random() * 300;
    const sent = [];
    const results = [];
    for (let n = 0; n < 8; n++) {
      sent.push(n);
      results.push(room.publish(n));
      await pass(random() * 200);
      if (random() < 0.5) world.cut();
      if (random() < 0.2) world.network.publish = ["refuse", "hang"][n % 2];
      else world.network.publish = "ok";
    }
    world.network.publish = "ok";
    for (let n = 0; n < 5; n++) {
      await pass(random() * 400);
      world.cut();
    }
    await pass(120_000);
    const positions = (await Promise.all(results)).map(({ position }) => position);
    assert.deepEqual(log(world), sent, `seed ${seed}`);
    assert.deepEqual(positions, sent.map((n) => `1.${n + 1}`), `seed ${seed}`);
    client.close();
  }
});
