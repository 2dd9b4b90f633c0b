import assert from "node:assert/strict";
import { test } from "node:test";
import { call } from "../.build/call.js";
import { connect, ThroughlineError } from "../.build/index.js";
import { World } from "./world.js";

function setup(options = {}, seed = 1) {
  const world = new World(seed);
  const client = connect("/realtime", { ...options, env: world.env(options.env) });
  return { world, client, pass: (ms) => world.clock.pass(ms) };
}

const code = (promise) => promise.then((value) => value, (error) => error.code);
const calls = (world) => world.said.filter(({ frame }) => frame.call).map(({ by, frame }) => ({ by, ...frame.call }));
const denied = (status, body) => ({ status, body: { error: body } });

for (const by of ["request", "websocket"]) {
  test(`P9.9 by ${by}: an answer, bytes, refusals, several at a time`, async () => {
    const { world, client, pass } = setup();
    if (by === "websocket") client.connect();
    await pass(1000);
    world.handlers.echo = (data, { encoding }) => ({ data, encoding });
    world.handlers.fail = () => ({ error: { code: "failed", class: "never", message: "the handler failed" } });
    const results = [call(client, "add", [1, 2]), call(client, "echo", new Uint8Array([0, 1, 2])), call(client, "echo"), call(client, "fail").catch((e) => e), code(call(client, "none", 1)), code(call(client, "echo", 1n))];
    await pass(200);
    const [sum, bytes, nothing, failed, none, invalid] = await Promise.all(results);
    assert.deepEqual([sum, bytes, nothing, none, invalid], [3, new Uint8Array([0, 1, 2]), null, "forbidden", "invalid"]);
    assert.ok(failed instanceof ThroughlineError);
    assert.deepEqual([failed.code, failed.message], ["failed", "the handler failed"]);
    assert.ok(calls(world).every((one) => one.by === by && !("key" in one)));
    assert.equal(new Set(calls(world).map(({ id }) => id)).size, 5);
    client.close();
  });
}

test("P9.10: once: a lost answer, a lost request and a late answer are unknown", async () => {
  const { world, client, pass } = setup();
  world.swallow = () => true;
  const posted = code(call(client, "add", [1, 2]));
  await pass(29_000);
  assert.equal(world.said.length, 1);
  await pass(1100);
  assert.equal(await posted, "unknown");
  const brief = code(call(client, "add", [1, 2], { timeout: 2000 }));
  await pass(2000);
  assert.equal(await brief, "unknown");
  const cut = code(call(client, "add", [1, 2]));
  await pass(50);
  world.cut();
  assert.equal((await Promise.all([cut, pass(10)]))[0], "unknown");
  client.connect();
  await pass(1000);
  const framed = code(call(client, "add", [1, 2]));
  await pass(100);
  world.cut();
  assert.equal((await Promise.all([framed, pass(10)]))[0], "unknown");
  await pass(5000);
  assert.equal(calls(world).length, 4, "none was repeated");
  world.upstream = () => ({ status: 502, body: "<html>" });
  client.transports = ["poll"];
  await pass(1000);
  const proxied = code(call(client, "add", [1, 2]));
  assert.equal((await Promise.all([proxied, pass(1000)]))[0], "unknown");
  client.close();
});

test("what certainly did not run says why", async () => {
  const { world, client, pass } = setup();
  for (const [answer, want] of [[denied(401, { code: "unauthorized", class: "never" }), "unauthorized"], [denied(503, { code: "busy", class: "later", after: 100 }), "busy"], [{ status: 413, body: "<html>" }, "refused"]]) {
    world.upstream = () => answer;
    const result = code(call(client, "add", [1, 2]));
    assert.equal((await Promise.all([result, pass(100)]))[0], want);
  }
  client.close();
  assert.equal(await code(call(client, "add", [1, 2])), "aborted");
});

test("P9.11: repeatable: under one key until it is answered, over whatever works", async () => {
  const { world, client, pass } = setup();
  client.connect();
  await pass(1000);
  world.swallow = () => true;
  const result = call(client, "add", [1, 2], { repeatable: true });
  await pass(100);
  world.cut();
  world.network.websocket = "refuse";
  await pass(70_000);
  world.swallow = () => false;
  await pass(60_000);
  assert.equal(await result, 3);
  const all = calls(world);
  assert.ok(all.length >= 3 && all.some(({ by }) => by === "request"));
  assert.equal(new Set(all.map(({ key }) => key)).size, 1);
  assert.match(all[0].key, /^[\w-]{1,64}$/);
  assert.equal(new Set(all.map(({ id }) => id)).size, all.length);
  client.close();
});

test("repeatable: later means later, never is the end, a timeout says what is known", async () => {
  const { world, client, pass } = setup();
  const options = { repeatable: true, timeout: 20_000 };
  world.handlers.add = () => ({ error: { code: "busy", class: "later", after: 5000 } });
  const busy = code(call(client, "add", 1, options));
  await pass(4900);
  assert.equal(calls(world).length, 1);
  await pass(20_000);
  assert.equal(await busy, "busy", "it never ran");
  world.handlers.add = () => ({ error: { code: "failed", class: "never" } });
  assert.equal((await Promise.all([code(call(client, "add", 1, options)), pass(100)]))[0], "failed");
  world.network.up = "refuse";
  const lost = code(call(client, "add", 1, options));
  await pass(25_000);
  assert.equal(await lost, "unknown");
  client.close();
});

test("a signal and close end a call at once, also between attempts", async () => {
  for (const repeatable of [false, true]) {
    const { world, client, pass } = setup();
    world.network.up = repeatable ? "refuse" : "hang";
    const control = new AbortController();
    const first = code(call(client, "add", 1, { repeatable, signal: control.signal }));
    const second = code(call(client, "add", 1, { repeatable }));
    await pass(100);
    control.abort();
    assert.equal(await first, "aborted");
    assert.equal(await code(call(client, "add", 1, { repeatable, signal: control.signal })), "aborted");
    client.close();
    assert.equal(await second, "aborted");
    const said = world.requests.length;
    await pass(60_000);
    assert.equal(world.requests.length, said);
    assert.equal(world.connections.size, 0);
  }
});

/** A clock as browsers have it: a delay over 2^31-1 ms is none. */
function browserClock(world) {
  const { setTimeout } = world.clock;
  world.clock.setTimeout = (call, ms) => setTimeout.call(world.clock, call, ms > 2 ** 31 - 1 ? 1 : ms);
}

test("a timeout may be longer than a timer can wait", async () => {
  for (const timeout of [Infinity, 30 * 86_400_000]) {
    for (const repeatable of [false, true]) {
      const { world, client, pass } = setup();
      browserClock(world);
      world.latency = () => 5000;
      const answer = code(call(client, "add", [1, 2], { timeout, repeatable }));
      await pass(11_000);
      assert.equal(await answer, 3);
      client.close();
    }
  }
});

test("P9.10: an attempt that was lost stays one, whatever the next is told", async () => {
  const refusals = {
    busy: denied(503, { code: "busy", class: "later", after: 100 }),
    unauthorized: denied(401, { code: "unauthorized", class: "never", message: "who are you" }),
    refused: { status: 403, body: "<html>" },
    forbidden: { status: 200, body: { answer: { id: 0, error: { code: "forbidden", class: "never", message: "not you" } } } },
    sold_out: { status: 200, body: { answer: { id: 0, error: { code: "sold_out", class: "never", message: "all gone" } } } },
  };
  for (const name in refusals) {
    for (const lost of [true, false]) {
      const { world, client, pass } = setup();
      let n = lost ? 0 : 1;
      world.upstream = () => (n++ ? refusals[name] : { status: 502, body: "<html>" });
      const told = call(client, "add", [1, 2], { repeatable: true, timeout: 5000 }).catch((error) => error);
      await pass(20_000);
      const { code, class: kind, message } = await told;
      assert.equal(code, lost ? "unknown" : name);
      if (lost) assert.equal(kind, "never");
      if (lost) assert.match(message, new RegExp(`may have run.*${name}`), "with the words of the refusal");
      if (lost && name === "sold_out") assert.match(message, /all gone/);
      client.close();
    }
  }
});

test("an answer that can't be read may be one to a call that ran", async () => {
  const { world, client, pass } = setup();
  world.handlers.odd = () => ({ data: "!", encoding: "base64" });
  const odd = code(call(client, "odd"));
  await pass(100);
  assert.equal(await odd, "unknown");
  client.close();
});

test("an answer that breaks off, or stays away, after its head came is a lost one", async () => {
  const broken = new DOMException("aborted", "AbortError"); // its code is a number
  for (const body of [() => Promise.reject(broken), () => new Promise(() => {}), () => Promise.reject(new TypeError("network"))]) {
    const { client, pass } = setup({ env: { fetch: async () => ({ ok: true, json: body }) } });
    const once = code(call(client, "add", [1, 2], { timeout: 1000 }));
    await pass(1000);
    assert.equal(await once, "unknown");
    client.close();
  }
});
