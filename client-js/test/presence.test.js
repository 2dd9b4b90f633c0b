import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, ThroughlineError } from "../.build/index.js";
import { presence } from "../.build/presence.js";
import { World } from "./world.js";

function setup(options = {}, seed = 1) {
  const world = new World(seed);
  const client = connect("/realtime", { ...options, env: world.env(options.env) });
  return { world, client, pass: (ms) => world.clock.pass(ms), line: () => [...world.connections].find(({ line }) => line)?.line };
}

const [ann, bob, eve] = ["ann", "bob", "eve"].map((subject, n) => ({ id: `s${n}`, subject }));

for (const transport of ["websocket", "sse", "poll"]) {
  test(`P10 ${transport}: a snapshot, differences, reconnects, refusals`, async () => {
    const { world, client, pass } = setup({ transports: [transport] });
    world.attend("room", [ann]);
    const got = [];
    client.channel("room").subscribe((event) => got.push(event.data));
    await pass(1000);
    const here = presence(client, "room");
    let changes = 0;
    here.onChange(() => changes++);
    assert.deepEqual([here.members, here.total], [[], 0]);
    const refused = presence(client, "secret");
    await pass(2000);
    assert.deepEqual([here.members, here.total], [[ann], 1]);
    assert.ok(refused.error instanceof ThroughlineError);
    assert.equal(refused.error.code, "forbidden");
    world.attend("room", [ann, bob]);
    await pass(3000);
    assert.deepEqual([here.members, here.total], [[ann, bob], 2]);
    world.cut();
    world.attend("room", [bob, eve]);
    await pass(5000);
    assert.deepEqual(here.members, [bob, eve]);
    assert.ok(changes >= 3);
    world.append("room", 1);
    await pass(2000);
    assert.deepEqual(got, [1], "the channel's events are not touched");
    if (transport === "poll") assert.deepEqual(world.opened.at(-1).hello.presence, [{ channel: "room", seen: "v3" }]);
    here.close();
    await pass(1000);
    const before = changes;
    world.attend("room", []);
    await pass(2000);
    assert.equal(changes, before);
    assert.deepEqual(world.breaches, []);
    client.close();
  });
}

test("P10.1: it connects, is asked once for all, and in flight where that is possible", async () => {
  const { world, client, pass, line } = setup({ transports: ["websocket"] });
  world.attend("room", [ann]);
  const control = new AbortController();
  const [one, two] = [presence(client, "room"), presence(client, "room", { signal: control.signal })];
  await pass(1000);
  assert.equal(client.state.name, "online");
  assert.deepEqual(world.opened.map(({ hello }) => hello.presence), [[{ channel: "room" }]]);
  assert.deepEqual([one.members, two.members], [[ann], [ann]]);
  const late = presence(client, "room");
  assert.deepEqual(late.members, [ann]);
  const other = presence(client, "other");
  await pass(100);
  assert.deepEqual([...line().watched], ["room", "other"]);
  assert.equal(world.opened.length, 1);
  one.close();
  late.close();
  late.close();
  await pass(100);
  assert.deepEqual([...line().watched], ["room", "other"]);
  control.abort();
  other.close();
  await pass(100);
  assert.deepEqual([...line().watched], []);
  presence(client, "room", { signal: control.signal });
  await pass(100);
  assert.deepEqual([...line().watched], []);
  client.close();
});

test("P10.2: too many to tell, changes of a member, and frames that make no sense", async () => {
  const { world, client, pass, line } = setup({ transports: ["websocket"] });
  const here = presence(client, "room");
  await pass(1000);
  const say = async (frame) => {
    line().send({ channel: "room", presence: frame });
    await pass(20);
    return [here.members, here.total];
  };
  assert.deepEqual(await say({ version: "a", total: 2, members: [ann, bob] }), [[ann, bob], 2]);
  const away = { ...ann, info: { away: true } };
  assert.deepEqual(await say({ version: "b", total: 2, joined: [away], left: [] }), [[away, bob], 2]);
  assert.deepEqual(await say({ version: "c", total: 5000 }), [[], 5000]);
  assert.deepEqual(await say({ version: "d", total: 5001, joined: [eve] }), [[], 5001], "a difference to nothing known");
  assert.deepEqual(await say({ version: "e", total: 1, members: [eve] }), [[eve], 1]);
  line().send({ channel: "nobody asked", presence: { version: "x", total: 1, members: [ann] } });
  await pass(20);
  assert.deepEqual(await say({ version: "f", total: 0, left: ["s2", "s9"] }), [[], 0]);
  client.close();
});

test("a line that attaches again and finds no change calls nobody", async () => {
  const { world, client, pass } = setup();
  world.attend("room", [ann]);
  const here = presence(client, "room");
  let heard = 0;
  here.onChange(() => heard++);
  await pass(1000);
  assert.equal(heard, 1);
  world.cut();
  await pass(5000);
  assert.equal(world.opened.length > 1, true);
  assert.equal(heard, 1);
  world.attend("room", [ann, bob]);
  await pass(1000);
  assert.deepEqual([heard, here.members], [2, [ann, bob]]);
  client.close();
});

test("P10.4: an end that says later is asked again; a client that failed ends it, a new use starts anew", async () => {
  const { world, client, pass, line } = setup({ transports: ["websocket"] });
  world.attend("room", [ann]);
  const here = presence(client, "room");
  await pass(1000);
  line().watched.clear();
  line().send({ channel: "room", presence: { end: { code: "unavailable", class: "later", after: 2000 } } });
  world.attend("room", [bob]);
  await pass(1900);
  assert.deepEqual(here.members, [ann]);
  await pass(1000);
  assert.deepEqual(here.members, [bob]);
  world.refuse = () => ({ status: 403, body: { error: { code: "foreign_origin", class: "never", message: "no" } } });
  world.cut();
  await pass(2000);
  assert.equal(here.error.code, "foreign_origin");
  world.refuse = () => undefined;
  const next = presence(client, "room");
  await pass(1000);
  assert.deepEqual([next.members, next.error], [[bob], undefined]);
  client.close();
});

test("a callback that throws stops no other", async () => {
  const { world, client, pass } = setup();
  const here = presence(client, "room");
  let heard = 0;
  here.onChange(() => {
    throw new Error("bug of the application");
  });
  here.onChange(() => heard++);
  await pass(1000);
  assert.equal(heard, 1);
  assert.equal(world.warnings.length, 1);
  client.close();
});
