import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, ThroughlineError } from "../.build/index.js";
import { World } from "./world.js";

function setup(options = {}, seed = 1) {
  const world = new World(seed);
  const client = connect("/realtime/", { ...options, env: world.env(options.env) });
  return { world, client, pass: (ms) => world.clock.pass(ms) };
}

/** Where a channel from "earliest" is before its first event was handled: a poll has no opening, so it can't be told. */
const begin = (transport) => (transport === "poll" ? undefined : "1.0");

/** Reads an iterator in the background. */
function read(iterable) {
  const got = [];
  const over = (async () => {
    for await (const event of iterable) got.push(event);
    return "end";
  })().catch((error) => error);
  return { got, over, data: () => got.map((event) => event.data) };
}

for (const transport of ["websocket", "sse", "poll"]) {
  test(`${transport}: events, states, payloads`, async () => {
    const { world, client, pass } = setup({ transports: [transport] });
    const states = [];
    client.onState((state) => states.push(state.name));
    const room = client.channel("room:42");
    const reader = read(room);
    assert.equal(client.state.name, "connecting");
    await pass(1000);
    assert.deepEqual(client.state, { name: "online", transport });
    world.append("room:42", { a: 1 });
    world.append("room:42", "text", "said");
    world.append("room:42", new Uint8Array([0, 255, 7]));
    world.append("other", "not for us");
    await pass(1000);
    assert.deepEqual(reader.data(), [{ a: 1 }, "text", new Uint8Array([0, 255, 7])]);
    assert.equal(reader.got[1].type, "said");
    assert.equal(room.position, "1.3");
    assert.deepEqual(states, ["connecting", "online"]);
    client.close();
    assert.equal(await reader.over, "end");
    assert.equal(client.state.name, "closed");
    await pass(1000);
    assert.equal(world.connections.size, 0);
  });

  test(`${transport}: a cut loses nothing, a trimmed log is a gap`, async () => {
    const { world, client, pass } = setup({ transports: [transport] });
    const reader = read(client.channel("c", { after: "earliest" }));
    const gaps = [];
    client.channel("c").onGap((gap) => gaps.push(gap)); // another handle's: hears nothing, as it receives nothing
    world.append("c", 1);
    await pass(500);
    world.cut();
    world.append("c", 2);
    await pass(5000);
    assert.deepEqual(reader.data(), [1, 2]);
    world.network[transport] = "refuse";
    world.cut();
    await pass(500);
    world.append("c", 3);
    world.trim("c");
    world.append("c", 4);
    world.network[transport] = "ok";
    await pass(40_000);
    assert.deepEqual(reader.data(), [1, 2, 4]);
    assert.deepEqual(reader.got[2].gap, { from: "1.2", to: "1.3", reason: "trimmed" });
    assert.equal(gaps.length, 0);
    assert.equal(world.warnings.length, 1, "a gap nobody listens for is warned about");
    client.close();
  });

  test(`${transport}: channels come and go`, async () => {
    const { world, client, pass } = setup({ transports: [transport] });
    const a = read(client.channel("a"));
    await pass(1000);
    const got = [];
    const stop = client.channel("b").subscribe((event) => got.push(event.data));
    const again = client.channel("b").subscribe((event) => got.push(event.data * 10));
    await pass(1000);
    assert.equal(client.state.name, "online");
    world.append("a", 1);
    world.append("b", 2);
    await pass(1000);
    assert.deepEqual(got, [2, 20]);
    stop();
    world.append("b", 3);
    await pass(1000);
    again();
    await pass(1000);
    world.append("b", 4);
    world.append("a", 5);
    await pass(1000);
    assert.deepEqual(got, [2, 20, 30]);
    assert.deepEqual(a.data(), [1, 5]);
    client.close();
  });

  test(`${transport}: an end throws`, async () => {
    const { world, client, pass } = setup({ transports: [transport] });
    world.refuseChannel = (name) => (name === "secret" ? { code: "forbidden", class: "never", message: "no" } : undefined);
    const reader = read(client.channel("secret"));
    const errors = [];
    client.channel("secret").subscribe(() => {}, { onError: (error) => errors.push(error.code) });
    const open = read(client.channel("open"));
    await pass(1000);
    const error = await reader.over;
    assert.ok(error instanceof ThroughlineError);
    assert.equal(error.code, "forbidden");
    assert.deepEqual(errors, ["forbidden"]);
    world.append("open", 1);
    await pass(1000);
    assert.deepEqual(open.data(), [1]);
    client.close();
  });

  test(`${transport}: a channel that is to come back later does`, async () => {
    const { world, client, pass } = setup({ transports: [transport] });
    let times = 2;
    world.refuseChannel = () => (times-- > 0 ? { code: "unavailable", class: "later", after: 3000 } : undefined);
    const reader = read(client.channel("c", { after: "earliest" }));
    world.append("c", 1);
    await pass(2900);
    assert.equal(times, 1);
    await pass(6000);
    assert.deepEqual(reader.data(), [1]);
    client.close();
  });

  test(`${transport}: a full iteration leaves the wire and comes back`, async () => {
    const { world, client, pass } = setup({ transports: [transport], buffer: 8 });
    const room = client.channel("c", { after: "earliest" });
    const iterator = room.events();
    for (let n = 1; n <= 100; n++) world.append("c", n);
    const first = iterator.next();
    await pass(2000);
    assert.equal((await first).value.data, 1);
    assert.equal(room.position, begin(transport), "the event in hand is not handled yet");
    assert.ok(![...world.connections].some(({ line }) => line?.cursors.has("c")), "it left the wire");
    assert.ok([...world.connections].some(({ line }) => line?.paused.has("c")), "and is paused, not unsubscribed");
    const got = [1];
    for (let n = 0; n < 99; n++) {
      const next = iterator.next();
      await pass(300);
      got.push((await next).value.data);
    }
    assert.deepEqual(got, Array.from({ length: 100 }, (_, n) => n + 1));
    client.close();
  });

  test(`${transport}: a handle goes on where it was left`, async () => {
    const { world, client, pass } = setup({ transports: [transport] });
    const room = client.channel("c", { after: "earliest" });
    for (let n = 1; n <= 5; n++) world.append("c", n);
    const got = [];
    const task = (async () => {
      for await (const event of room) {
        got.push(event.data);
        if (event.data === 2) break;
      }
    })();
    await pass(2000);
    await task;
    assert.equal(room.position, "1.2");
    const rest = read(room);
    await pass(2000);
    assert.deepEqual([...got, ...rest.data()], [1, 2, 3, 4, 5]);
    client.close();
  });
}

for (const transport of ["websocket", "sse", "poll"]) {
  test(`${transport}: a position that is stored while a loop lags loses nothing`, async () => {
    const { world, client, pass } = setup({ transports: [transport] });
    const room = client.channel("c", { after: "earliest" });
    for (let n = 1; n <= 20; n++) world.append("c", n);
    const iterator = room.events();
    let stored;
    for (let n = 1; n <= 7; n++) {
      const next = iterator.next();
      stored = room.position; // the one before is handled
      await pass(n === 1 ? 2000 : 0);
      const { value } = await next;
      assert.equal(value.data, n);
      assert.equal(room.position, stored ?? begin(transport), "the one in hand is not");
      if (n > 1) assert.equal(stored, `1.${n - 1}`);
      stored = value.position;
    }
    client.close();
    const page = setup({ transports: [transport] });
    page.world.channels = world.channels;
    const rest = read(page.client.channel("c", { after: stored }));
    await page.pass(2000);
    assert.deepEqual(rest.data(), [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    page.client.close();
  });
}

test("a second handle that begins at a position elsewhere than the first is told what it misses", async () => {
  const { world, client, pass } = setup();
  for (let n = 1; n <= 5; n++) world.append("c", n);
  const first = read(client.channel("c"));
  await pass(500);
  const late = client.channel("c", { after: "1.2" });
  assert.equal(late.position, "1.2");
  const second = read(late);
  world.append("c", 6);
  await pass(500);
  assert.deepEqual(first.data(), [6]);
  assert.deepEqual(second.data(), [6]);
  assert.deepEqual(second.got[0].gap, { from: "1.2", to: "1.5", reason: "skipped" });
  client.close();
});

test("a handle that comes back to a shared channel is told what it missed", async () => {
  const { world, client, pass } = setup();
  const mine = client.channel("c");
  const others = read(client.channel("c"));
  const got = [];
  const stop = mine.subscribe((event) => got.push(event));
  await pass(500);
  world.append("c", 1);
  await pass(100);
  stop();
  world.append("c", 2);
  await pass(100);
  const gaps = [];
  mine.onGap((gap) => gaps.push(gap));
  mine.subscribe((event) => got.push(event));
  world.append("c", 3);
  await pass(100);
  const gap = { from: "1.1", to: "1.2", reason: "skipped" };
  assert.deepEqual(gaps, [gap]);
  assert.deepEqual(got.map((event) => event.data), [1, 3]);
  assert.deepEqual(got[1].gap, gap);
  assert.deepEqual(others.data(), [1, 2, 3]);
  assert.ok(others.got.every((event) => !event.gap));
  client.close();
});

test("several gaps before an event are one", async () => {
  const { world, client, pass } = setup({ transports: ["websocket"] });
  const room = client.channel("c", { after: "earliest" });
  const gaps = [];
  room.onGap((gap) => gaps.push(gap.reason));
  const reader = read(room);
  world.append("c", 1);
  await pass(500);
  const [connection] = world.connections;
  connection.line.send({ channel: "c", gap: { from: "1.1", to: "1.5", reason: "skipped" } });
  connection.line.send({ channel: "c", gap: { from: "1.5", to: "1.9", reason: "trimmed" } });
  connection.line.send({ channel: "c", position: "1.10", type: "message", data: 2 });
  await pass(100);
  assert.deepEqual(gaps, ["skipped", "trimmed"]);
  assert.deepEqual(reader.got[1].gap, { from: "1.1", to: "1.9", reason: "trimmed" });
  assert.equal(world.warnings.length, 0);
  client.close();
});

test("of a line that was left nothing is heard, even in the middle of what it brought", async () => {
  for (const [from, to] of [["poll", "sse"], ["sse", "poll"], ["websocket", "sse"]]) {
    const { world, client, pass } = setup({ transports: [from] });
    const got = [];
    client.channel("c", { after: "earliest" }).subscribe((event) => {
      if (got.push(event.data) === 1) client.transports = [to];
    });
    for (let n = 1; n <= 5; n++) world.append("c", n);
    await pass(3000);
    assert.deepEqual(got, [1, 2, 3, 4, 5], `${from} to ${to}`);
    client.close();
  }
});

test("a gap that no event carried yet is told again to who comes back", async () => {
  const { world, client, pass } = setup({ transports: ["websocket"] });
  const room = client.channel("c", { after: "earliest" });
  const got = [];
  let stop = room.subscribe((event) => got.push(event));
  world.append("c", 1);
  await pass(500);
  world.cut();
  world.append("c", 2);
  world.trim("c");
  await pass(1000);
  assert.equal(room.position, "1.1", "nobody was told");
  stop();
  await pass(500);
  stop = room.subscribe((event) => got.push(event));
  world.append("c", 3);
  await pass(500);
  assert.deepEqual(got.map((event) => event.data), [1, 3]);
  assert.deepEqual(got[1].gap, { from: "1.1", to: "1.2", reason: "trimmed" });
  client.close();
});

test("a signal ends an iteration quietly, and takes the channel off the wire", async () => {
  const { world, client, pass } = setup({ transports: ["websocket"] });
  const control = new AbortController();
  const reader = read(client.channel("c").events({ signal: control.signal }));
  await pass(500);
  control.abort();
  assert.equal(await reader.over, "end");
  await pass(500);
  const [connection] = world.connections;
  assert.equal(connection.line.cursors.size, 0);
  client.close();
});

test("a callback that throws stops nothing", async () => {
  const { world, client, pass } = setup();
  const got = [];
  const room = client.channel("c");
  room.subscribe(() => {
    throw new Error("bug of the application");
  });
  room.subscribe((event) => got.push(event.data));
  await pass(500);
  world.append("c", 1);
  world.append("c", 2);
  await pass(500);
  assert.deepEqual(got, [1, 2]);
  assert.equal(world.warnings.length, 2);
  client.close();
});

test("without a WebSocket it starts on SSE", async () => {
  const { client, pass } = setup({ env: { WebSocket: undefined } });
  client.connect();
  await pass(1000);
  assert.deepEqual(client.state, { name: "online", transport: "sse" });
  client.close();
});

test("a proxy that swallows WebSockets and buffers streams leaves long-poll", async () => {
  const { world, client, pass } = setup();
  world.network.websocket = "hang";
  world.network.sse = "buffer";
  const reader = read(client.channel("c"));
  await pass(4000);
  assert.deepEqual(client.state, { name: "online", transport: "poll" });
  world.append("c", 1);
  await pass(1000);
  assert.deepEqual(reader.data(), [1]);
  await pass(30_000);
  assert.equal([...world.memory.values()].filter(Number).length, 2, "both demotions are remembered");
  // A new page goes to what works at once.
  const next = connect("/realtime", { env: world.env() });
  next.connect();
  await pass(500);
  assert.deepEqual(next.state, { name: "online", transport: "poll" });
  // The network heals: up it goes, without a word of loss.
  world.network.websocket = "ok";
  await pass(400_000);
  assert.deepEqual(client.state, { name: "online", transport: "websocket" });
  world.append("c", 2);
  await pass(1000);
  assert.deepEqual(reader.data(), [1, 2]);
  client.close();
  next.close();
});

test("transports are forbidden and allowed at run time", async () => {
  const { world, client, pass } = setup();
  const reader = read(client.channel("c"));
  await pass(1000);
  assert.equal(client.state.transport, "websocket");
  client.transports = ["sse", "poll"];
  await pass(1000);
  assert.equal(client.state.transport, "sse");
  world.append("c", 1);
  client.transports = ["poll"];
  await pass(1000);
  assert.equal(client.state.transport, "poll");
  client.transports = [];
  assert.equal(client.state.name, "waiting");
  world.append("c", 2);
  await pass(10_000);
  client.transports = ["websocket", "sse", "poll"];
  await pass(5000);
  assert.equal(client.state.transport, "websocket");
  client.transports = ["poll"];
  await pass(1000);
  assert.equal(client.state.transport, "poll");
  client.transports = ["websocket", "sse", "poll"];
  await pass(3000);
  assert.equal(client.state.transport, "websocket");
  assert.deepEqual(reader.data(), [1, 2]);
  client.close();
});

test("a refusal for good fails, and connect tries again", async () => {
  const { world, client, pass } = setup();
  world.refuse = () => ({ status: 403, body: { error: { code: "foreign_origin", class: "never", message: "no" } } });
  const reader = read(client.channel("c"));
  await pass(1000);
  assert.equal(client.state.name, "failed");
  assert.equal((await reader.over).code, "foreign_origin");
  world.refuse = () => undefined;
  client.connect();
  await pass(1000);
  assert.equal(client.state.name, "online");
  client.close();
});

test("a server's delay is kept, and nothing races in it", async () => {
  for (const transport of ["websocket", "sse", "poll"]) {
    const { world, client, pass } = setup({ transports: [transport, ...["websocket", "sse", "poll"].filter((t) => t !== transport)] });
    client.connect();
    world.refuse = () => ({ status: 503, body: { error: { code: "busy", class: "later", after: 20_000, message: "busy" } } });
    await pass(500);
    const asked = world.requests.length;
    assert.equal(client.state.name, "waiting");
    assert.equal(client.state.reason.code, "busy");
    world.refuse = () => undefined;
    world.page("online");
    world.page("visibilitychange");
    await pass(19_400);
    assert.equal(world.requests.length, asked);
    await pass(2000);
    assert.equal(client.state.name, "online");
    client.close();
  }
});

test("Retry-After is kept", async () => {
  const { world, client, pass } = setup({ transports: ["sse"] });
  world.refuse = () => ({ status: 503, body: "<html>", headers: { "Retry-After": "7" } });
  client.connect();
  await pass(100);
  assert.ok(client.state.retryAt >= world.clock.now + 6800);
  client.close();
});

test("a goodbye is obeyed", async () => {
  for (const transport of ["websocket", "sse", "poll"]) {
    const { world, client, pass } = setup({ transports: [transport] });
    const reader = read(client.channel("c"));
    await pass(1000);
    const [connection] = world.connections;
    connection.line.goodbye({ code: "shutdown", class: "later", after: 1200, message: "bye" });
    await pass(300);
    assert.equal(client.state.reason.code, "shutdown");
    world.append("c", 1);
    await pass(3000);
    assert.deepEqual(reader.data(), [1]);
    client.close();
  }
});

test("a silent line is dead after two heartbeats", async () => {
  const { world, client, pass } = setup({ transports: ["websocket"] });
  world.heartbeat = 5000;
  client.connect();
  await pass(1000);
  const [connection] = world.connections;
  connection.line.stop(); // not a word more
  await pass(9000);
  assert.equal(world.opened.length, 1);
  await pass(2500);
  assert.equal(world.opened.length, 2);
  assert.equal(client.state.name, "online");
  client.close();
});

test("the page goes into the cache and comes back", async () => {
  const { world, client, pass } = setup();
  const reader = read(client.channel("c"));
  await pass(1000);
  world.page("pagehide", { persisted: true });
  assert.equal(world.connections.size, 0, "closed cleanly");
  world.append("c", 1);
  await pass(600_000);
  assert.equal(world.opened.length, 1);
  world.page("pageshow", { persisted: true });
  await pass(500);
  assert.deepEqual(reader.data(), [1]);
  assert.equal(client.state.name, "online");
  client.close();
  assert.equal(world.listeners.size, 0);
});

test("offline is a suspicion, online looks into it", async () => {
  const { world, client, pass } = setup({ transports: ["websocket"] });
  client.connect();
  await pass(1000);
  world.page("offline");
  await pass(5000);
  assert.equal(client.state.name, "online");
  const [connection] = world.connections;
  connection.line.stop();
  world.page("online");
  await pass(2000);
  assert.equal(world.opened.length, 2);
  client.close();
});

test("storage that throws is no storage", async () => {
  const storage = { getItem() { throw new Error("blocked"); }, setItem() { throw new Error("blocked"); }, removeItem() { throw new Error("blocked"); } };
  const { world, client, pass } = setup({ env: { storage } });
  world.network.websocket = "refuse";
  client.connect();
  await pass(30_000);
  assert.deepEqual(client.state, { name: "online", transport: "sse" });
  client.close();
});

test("somebody who answers polls at once, with nothing, does not make it spin", async () => {
  const { world, client, pass } = setup({ transports: ["poll"] });
  world.refuse = (route, { line }) => ({ status: 200, body: { open: { version: 1, line, heartbeat: 25_000 }, events: [], positions: { c: "1.0" } } });
  client.channel("c").subscribe(() => {});
  await pass(30_000);
  assert.equal(client.state.name, "online");
  assert.ok(world.requests.length < 35, `${world.requests.length} polls in half a minute`);
  client.close();
});

test("channels of one turn are one change", async () => {
  const { world, client, pass } = setup({ transports: ["sse"] });
  client.connect();
  await pass(1000);
  const stops = Array.from({ length: 20 }, (_, n) => client.channel(`c${n}`).subscribe(() => {}));
  await pass(1000);
  assert.equal(world.opened.length, 2);
  assert.equal(world.opened[1].hello.channels.length, 20);
  stops.forEach((stop) => stop());
  await pass(1000);
  assert.equal(world.opened.length, 3);
  client.close();
});

test("what can't be is refused at once, and harms nobody", async () => {
  const world = new World();
  const env = world.env();
  for (const url of ["/realtime?user=ann", "http://", undefined]) {
    if (url !== undefined) assert.throws(() => connect(url, { env }), TypeError, url);
  }
  assert.throws(() => connect("/realtime", { env: { ...env, base: undefined } }), TypeError, "nothing it is relative to");
  for (const transports of [["ws"], "sse", ["websocket", undefined]]) assert.throws(() => connect("/realtime", { env, transports }), /no transport/);
  const client = connect("/realtime", { env });
  assert.throws(() => (client.transports = ["ws"]), /no transport/);
  const got = [];
  client.channel("room").subscribe(({ data }) => got.push(data));
  for (const name of ["", undefined, null, 5, {}]) assert.throws(() => client.channel(name), TypeError, String(name));
  assert.throws(() => client.channel("x", { after: 5 }), TypeError);
  client.channel("x", { after: null }); // as a storage has it that holds none
  await world.clock.pass(1000);
  world.append("room", 1);
  await world.clock.pass(100);
  assert.deepEqual(got, [1]);
  client.close();
});

for (const transport of ["websocket", "sse", "poll"]) {
  test(`${transport}: why the client is refused is told in the program's words`, async () => {
    const { world, client, pass } = setup({ transports: [transport] });
    world.refuse = () => ({ status: 403, body: { error: { code: "banned", class: "never", message: "you are banned until monday" } } });
    client.connect();
    await pass(1000);
    assert.deepEqual([client.state.name, client.state.error.code, client.state.error.message], ["failed", "banned", "you are banned until monday"]);
  });
}
