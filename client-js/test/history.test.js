import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../.build/index.js";
import { World } from "./world.js";

function setup(options = {}) {
  const world = new World();
  const client = connect("/realtime", { ...options, env: world.env() });
  return { world, client, room: client.channel("room"), pass: (ms) => world.clock.pass(ms) };
}

/** All that an iteration gives, with the world's time going on meanwhile. */
async function all(world, events) {
  const got = [];
  let over = false;
  const reading = (async () => {
    for await (const event of events) got.push(event);
  })().finally(() => (over = true));
  reading.catch(() => {});
  while (!over) {
    await world.clock.pass(10);
    await new Promise((done) => setImmediate(done)); // the module is loaded in real time
  }
  await reading;
  return got;
}

const data = (events) => events.map((event) => event.data);
const pages = (world) => world.requests.filter(({ route }) => route === "history").length;

test("P12.2: pages join, forwards and backwards, and no line is opened for them", async () => {
  const { world, client, room } = setup();
  for (let n = 0; n < 25; n++) world.append("room", n);
  const numbers = [...Array(25).keys()];
  assert.deepEqual(data(await all(world, room.history({ page: 10 }))), numbers);
  assert.deepEqual(data(await all(world, room.history({ page: 10, backwards: true }))), numbers.reverse());
  assert.equal(pages(world), 6);
  assert.deepEqual(data(await all(world, room.history({ backwards: true, limit: 3 }))), [24, 23, 22]);
  const some = await all(world, room.history({ after: "1.4", until: "1.7" }));
  assert.deepEqual(data(some), [4, 5, 6]);
  assert.deepEqual([some[0].channel, some[0].type, some[0].position, some[0].time.getTime(), some[0].tags], ["room", "message", "1.5", 1000, []]);
  assert.equal(client.state.name, "idle");
  assert.equal(room.position, undefined);
});

test("P12.2: the end says whether older events are kept no more", async () => {
  const { world, room } = setup();
  for (let n = 0; n < 25; n++) world.append("room", n);
  const ends = [];
  const onEnd = (end) => ends.push(end);
  await all(world, room.history({ page: 10, backwards: true, onEnd }));
  await all(world, room.history({ limit: 3, onEnd })); // there is more
  assert.deepEqual(ends, [{ trimmed: false }]);
  world.channel("room").first = 5;
  assert.deepEqual(data(await all(world, room.history({ backwards: true, onEnd }))).at(-1), 5);
  assert.deepEqual(ends, [{ trimmed: false }, { trimmed: true }]);
});

test("a page is asked for when it is needed", async () => {
  const { world, room } = setup();
  for (let n = 0; n < 25; n++) world.append("room", n);
  let n = 0;
  const few = async function* () {
    for await (const event of room.history({ page: 10 })) {
      yield event;
      if (++n === 10) return;
    }
  };
  assert.equal((await all(world, few())).length, 10);
  assert.equal(pages(world), 1);
});

test("P12.5: a filter, bytes, keys and tags", async () => {
  const { world, room } = setup();
  world.append("room", 1, "said", { key: "a", tags: ["x", "y"] });
  world.append("room", new Uint8Array([1, 2]), "said", { tags: ["y"] });
  world.append("room", 3, "seen", { key: "b" });
  const said = await all(world, room.history({ filter: { types: ["said"], tags: ["y", "z"] } }));
  assert.deepEqual(said.map(({ data, key, tags }) => ({ data, key, tags })), [{ data: 1, key: "a", tags: ["x", "y"] }, { data: new Uint8Array([1, 2]), key: undefined, tags: ["y"] }]);
  assert.deepEqual(data(await all(world, room.history({ filter: { keys: ["b"] } }))), [3]);
});

test("P12.6: what is missing is told, where it lies", async () => {
  const { world, room } = setup();
  for (let n = 0; n < 5; n++) world.append("room", n);
  world.trim("room");
  for (let n = 5; n < 8; n++) world.append("room", n);
  const gap = { from: "1.2", to: "1.5", reason: "trimmed" };
  const told = [];
  const forth = await all(world, room.history({ after: "1.2", onGap: (gap) => told.push(gap) }));
  assert.deepEqual(forth.map(({ data, gap }) => [data, gap]), [[5, gap], [6, undefined], [7, undefined]]);
  const back = await all(world, room.history({ after: "1.2", backwards: true, onGap: (gap) => told.push(gap) }));
  assert.deepEqual(back.map(({ data, gap }) => [data, gap]), [[7, undefined], [6, undefined], [5, undefined]]);
  assert.deepEqual(told, [gap, gap]);
});

test("refusals and aborts reject", async () => {
  const { world, client, room } = setup();
  await assert.rejects(all(world, client.channel("secret").history()), { code: "forbidden", class: "never" });
  world.append("room", 1);
  const control = new AbortController();
  control.abort();
  await assert.rejects(all(world, room.history({ signal: control.signal })));
});

for (const transport of ["websocket", "sse", "poll"]) {
  test(`P2.9 over ${transport}: a channel with a filter, across reconnects; another filter throws while it is used`, async () => {
    const { world, client, pass } = setup({ transports: [transport] });
    const filter = { types: ["said"] };
    const room = client.channel("room", { after: "earliest", filter });
    const got = [];
    const stop = room.subscribe(({ data }) => got.push(data));
    for (let n = 0; n < 20; n++) {
      world.append("room", n, n % 3 ? "seen" : "said");
      await pass(500);
      if (n % 5 === 4) world.cut();
    }
    await pass(20_000);
    assert.deepEqual(got, [0, 3, 6, 9, 12, 15, 18]);
    const other = client.channel("room", { filter: { types: ["seen"] } });
    assert.throws(() => other.subscribe(() => {}), TypeError);
    await assert.rejects(other.events().next(), TypeError);
    client.channel("room", { filter: { types: ["said"] } }).subscribe(() => {})();
    stop();
    await pass(1000);
    const rest = [];
    other.subscribe(({ data }) => rest.push(data));
    await pass(1000);
    world.append("room", 20, "seen");
    world.append("room", 21, "said");
    await pass(5000);
    assert.deepEqual(rest, [20]);
    assert.deepEqual([world.breaches, got.length], [[], 7]);
    client.close();
  });
}
