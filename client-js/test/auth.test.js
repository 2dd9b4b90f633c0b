import assert from "node:assert/strict";
import { test } from "node:test";
import { bearer } from "../.build/auth.js";
import { call } from "../.build/call.js";
import { connect } from "../.build/index.js";
import { World, dice } from "./world.js";

/** A world in which tokens `t1`, `t2`, … are handed out, and the last one holds. */
function setup(options = {}) {
  const world = new World();
  world.known = new Set(["t1"]);
  const asked = [];
  const token = () => {
    asked.push(world.clock.now);
    return `t${asked.length}`;
  };
  const client = connect("/realtime", { env: world.env(), auth: bearer(token), ...options });
  const seen = [];
  client.channel("room").subscribe(({ data }) => seen.push(data));
  const pass = (ms) => world.clock.pass(ms);
  const only = (...tokens) => (world.known = new Set(tokens));
  const line = () => [...world.connections].find((one) => one.line && !one.line.hello.probe)?.line;
  return { world, client, asked, seen, pass, only, line };
}

const ways = ["websocket", "sse", "poll"];

for (const way of ways) {
  test(`${way}: the token is shown with everything`, async () => {
    const { world, client, asked, pass, seen } = setup({ transports: [way] });
    await pass(1000);
    assert.deepEqual(client.state, { name: "online", transport: way });
    world.append("room", "hello");
    await pass(1000);
    assert.deepEqual(seen, ["hello"]);
    const sum = call(client, "add", [1, 2]);
    const published = client.channel("room").publish("mine");
    await pass(1000);
    assert.equal(await sum, 3);
    await published;
    assert.equal(asked.length, 1);
    assert.ok(world.shown.every(({ text }) => text === "t1"));
    assert.ok(world.requests.every(({ route }) => !route.includes("t1")));
    client.close();
  });

  test(`${way}: asked for another one ahead of time, it goes on without a break`, async () => {
    const { world, client, asked, pass, seen, line, only } = setup({ transports: [way] });
    await pass(1000);
    const states = [];
    client.onState(({ name }) => states.push(name));
    only("t1", "t2");
    line().send({ refresh: { left: 60_000 } });
    line().flush?.();
    await pass(1000);
    assert.equal(asked.length, 2);
    assert.equal(world.shown.at(-1).text, "t2");
    only("t2");
    world.append("room", 1);
    await pass(1000);
    assert.deepEqual(seen, [1]);
    assert.ok(!states.includes("waiting") && !states.includes("failed"), states.join());
    if (way === "websocket") assert.equal(world.opened.length, 1, "a frame is enough");
    client.close();
  });

  test(`${way}: when the line ends as expired it comes back with a fresh one and misses nothing`, async () => {
    const { world, client, asked, pass, seen, line, only } = setup({ transports: [way] });
    await pass(1000);
    only("t2");
    line().goodbye({ code: "expired", class: "now", message: "over" });
    world.append("room", 1);
    await pass(3000);
    assert.deepEqual([asked.length, seen, client.state.name], [2, [1], "online"]);
    client.close();
  });

  test(`${way}: a token that aged while nobody was connected is renewed once; one that is refused fresh is a failure`, async () => {
    const { world, client, asked, pass, only } = setup({ transports: [way] });
    await pass(1000);
    only("t2");
    world.cut();
    await pass(3000);
    assert.deepEqual([asked.length, client.state.name], [2, "online"]);
    only();
    world.cut();
    await pass(10_000);
    assert.equal(client.state.name, "failed");
    assert.equal(client.state.error.code, "unauthorized");
    assert.equal(asked.length, 3, "the one that had aged, and a fresh one");
    client.close();
  });
}

test("while no token can be had it waits and tries again, as if the network were away", async () => {
  const world = new World();
  let away = true;
  world.known = new Set(["t"]);
  const client = connect("/realtime", {
    env: world.env(),
    auth: bearer(async () => {
      if (away) throw new Error("the issuer is away");
      return "t";
    }),
  });
  client.connect();
  await world.clock.pass(20_000);
  assert.equal(client.state.name, "waiting");
  assert.equal(client.state.reason.code, "network");
  assert.equal(world.opened.length, 0);
  away = false;
  await world.clock.pass(60_000);
  assert.equal(client.state.name, "online");
  client.close();
});

test("a client that is closed while it waits for a token opens nothing", async () => {
  const world = new World();
  let give;
  const client = connect("/realtime", { env: world.env(), transports: ["websocket"], auth: bearer(() => new Promise((resolve) => (give = resolve))) });
  client.connect();
  await world.clock.pass(100);
  client.close();
  give("t");
  await world.clock.pass(1000);
  assert.equal(world.requests.length, 0);
});

for (const way of ["sse", "poll"]) {
  test(`${way}: nor does one that is closed, whose request waits for a token`, async () => {
    const world = new World();
    let give;
    const client = connect("/realtime", { env: world.env(), transports: [way], auth: bearer(() => new Promise((resolve) => (give = resolve))) });
    client.connect();
    const published = client.channel("room").publish(1).catch(({ code }) => code);
    await world.clock.pass(100);
    client.close();
    give("t");
    await world.clock.pass(1000);
    assert.equal(world.requests.length, 0);
    assert.equal(await published, "aborted");
  });

  test(`${way}: the goodbye of a page that is left goes out at once, with the token`, async () => {
    const { world, client, pass } = setup({ transports: [way] });
    await pass(1000);
    world.page("pagehide", { persisted: false });
    const { route, keepalive, headers } = world.requests.at(-1); // no turn of anything between
    assert.deepEqual([route, keepalive, headers.Authorization], ["up", true, "Bearer t1"]);
    client.close();
  });
}

test("what can't be a token is none: the page of an issuer that is broken", async () => {
  const world = new World();
  world.known = new Set(["t"]);
  let page = "<h1>Internal\nServer Error</h1>";
  const client = connect("/realtime", { env: world.env(), auth: bearer(async () => page) });
  client.connect();
  for (const text of [page, "", "naïve", undefined, null]) {
    page = text;
    await world.clock.pass(20_000);
    assert.deepEqual([client.state.name, client.state.reason.code, world.shown.length], ["waiting", "network", 0]);
  }
  page = "t";
  await world.clock.pass(60_000);
  assert.equal(client.state.name, "online");
  client.close();
});

test("a WebSocket that can't be made is one that broke", async () => {
  const world = new World();
  const env = world.env({
    WebSocket: class {
      constructor() {
        throw new Error("insecure");
      }
    },
  });
  const client = connect("/realtime", { env, auth: bearer(() => "t") });
  client.connect();
  await world.clock.pass(400);
  assert.deepEqual(client.state, { name: "online", transport: "sse" }, "at once, not when a time is over");
  client.close();
});

for (const way of ways) {
  test(`${way}: fresh credentials that don't hold are not shown again`, async () => {
    const { world, client, asked, pass, seen, line, only } = setup({ transports: [way] });
    await pass(1000);
    only("t1", "t3");
    line().send({ refresh: { left: 60_000 } });
    line().flush?.();
    await pass(5000);
    assert.deepEqual([client.state.name, asked.length], ["online", 3]);
    world.append("room", 1);
    await pass(1000);
    assert.deepEqual(seen, [1]);
    assert.equal(world.shown.filter(({ text }) => text === "t2").length, 1);
    client.close();
  });

  test(`${way}: asked for another one where there is none yet, it does not spin, and comes back when the line ends`, async () => {
    let text = "t1";
    let away = false;
    const token = () => {
      if (away) throw new Error("the issuer is away");
      return text;
    };
    const { world, client, pass, line, only } = setup({ transports: [way], auth: bearer(token) });
    await pass(1000);
    const opened = world.opened.length;
    for (let n = 0; n < 20; n++) {
      away = n % 2 > 0;
      line()?.send({ refresh: { left: 60_000 } });
      line()?.flush?.();
      await pass(100);
    }
    if (way !== "poll") assert.equal(world.opened.length, opened);
    assert.ok(world.opened.length <= opened + 20);
    assert.equal(world.shown.filter(({ by }) => by === "line").length, 0);
    away = false;
    text = "t2";
    only("t2");
    line()?.goodbye({ code: "expired", class: "now" });
    await pass(3000);
    assert.equal(client.state.name, "online");
    assert.equal(world.shown.at(-1).text, "t2");
    client.close();
  });
}

/** On a stream, with a WebSocket on its way or open as a probe. */
async function probing(open) {
  const it = setup({ transports: ["sse"] });
  const { world, client, pass, only } = it;
  await pass(1000);
  only("t1", "t2", "t3");
  client.transports = ways;
  world.latency = () => 50;
  const socket = () => [...world.connections].find(({ transport, line }) => transport === "websocket" && !!line === open);
  while (!socket()) await pass(5);
  return { ...it, socket };
}

test("a socket on its way when a fresh one comes shows the fresh one", async () => {
  const { world, client, pass, line, asked } = await probing(false);
  line().send({ refresh: { left: 60_000 } });
  await pass(3000);
  assert.deepEqual(client.state, { name: "online", transport: "websocket" });
  assert.deepEqual([asked.length, world.shown.filter(({ by }) => by === "websocket").map(({ text }) => text).slice(0, 1)], [2, ["t2"]]);
  client.close();
});

test("what is asked of a stream is not answered on a socket that is only tried", async () => {
  const { world, client, pass, line, asked } = await probing(true);
  world.shown.length = 0;
  line().send({ refresh: { left: 60_000 } });
  await pass(120);
  assert.deepEqual([asked.length, world.shown.map(({ by, text }) => [by, text])], [2, [["sse", "t2"]]]);
  await pass(3000);
  assert.deepEqual(client.state, { name: "online", transport: "websocket" });
  client.close();
});

/** The wrappers by themselves. */
function bare(tokens, answers = []) {
  const sockets = [];
  const heard = [];
  const internal = {
    timing: { connect: 10_000 },
    env: {
      setTimeout: () => 0,
      clearTimeout: () => {},
      fetch: async (url, { headers }) => (heard.push(headers.Authorization), answers.shift()),
      WebSocket: class {
        said = [];
        constructor() {
          sockets.push(this);
        }
        send(text) {
          this.said.push(JSON.parse(text));
        }
        close() {
          this.closed = true;
        }
      },
    },
    reopen: () => heard.push("reopen"),
  };
  let n = 0;
  bearer(() => tokens[Math.min(n++, tokens.length - 1)])(internal);
  const turn = () => new Promise(setImmediate);
  /** Opens one, as the client does. */
  const open = async () => {
    const outer = new internal.env.WebSocket("ws://x");
    const events = [];
    outer.onmessage = ({ data }) => events.push(data);
    outer.onclose = ({ code }) => events.push(code);
    await turn();
    const inner = sockets.at(-1);
    inner.onopen({});
    return { outer, inner, events, hear: (frame) => inner.onmessage({ data: JSON.stringify(frame) }) };
  };
  return { internal, open, turn, heard, asked: () => n };
}

const no = { close: { code: "unauthorized", class: "never" } };

test("a token that aged is one refusal, on however many sockets, and also on those that were left", async () => {
  const { open, asked } = bare(["t1", "t2"]);
  const [one, two, left] = [await open(), await open(), await open()];
  left.outer.close();
  for (const socket of [one, two, left]) socket.hear(no);
  assert.deepEqual([one.events, two.events, left.events], [[1006], [1006], []]);
  assert.ok(one.inner.closed);
  const three = await open();
  assert.deepEqual([three.inner.said, asked()], [[{ credentials: "t2" }], 2]);
  three.hear({ open: { version: 1 } });
  three.outer.close();
  three.hear(no); // nobody's any more
  const four = await open();
  four.hear(no);
  assert.deepEqual(four.events, [1006], "it held once");
  const five = await open();
  five.hear(no);
  assert.deepEqual(five.events, [JSON.stringify(no)], "a fresh one");
});

test("an answer by request shows that the token holds, too", async () => {
  const { internal, open } = bare(["t1", "t2", "t3"], [{ ok: true, status: 200 }]);
  (await open()).hear(no);
  await internal.env.fetch("/up", {});
  const later = await open();
  later.hear(no);
  assert.deepEqual(later.events, [1006]);
});

test("a socket is asked, and answers for itself; to the client that is a heartbeat", async () => {
  const { open, turn, heard, asked } = bare(["t1", "t2", "t3", "t4"]);
  const [one, two, left] = [await open(), await open(), await open()];
  one.hear({ refresh: { left: 1000 } });
  left.hear({ refresh: { left: 1000 } });
  left.outer.close();
  await turn();
  assert.deepEqual([one.inner.said.at(-1), two.inner.said.length, left.inner.said.length, one.events, heard], [{ credentials: "t2" }, 1, 1, ["{}"], []]);
  two.hear({ refresh: { left: 1000 } });
  await turn();
  assert.deepEqual(two.inner.said.at(-1), { credentials: "t2" }, "that is held by now");
  one.hear({ close: { code: "expired", class: "now" } });
  two.hear({ close: { code: "expired", class: "now" } });
  assert.equal(one.events.length, 2, "an end by expiry is told");
  assert.deepEqual([(await open()).inner.said, asked()], [[{ credentials: "t3" }], 3], "and what was shown is no good");
});

for (const way of ["sse", "poll"]) {
  test(`${way}: asked again while the fresh one is on its way, it opens one line for it`, async () => {
    const give = [];
    const { world, client, pass, line, only } = setup({ transports: [way], auth: bearer(() => new Promise((resolve) => give.push(resolve))) });
    await pass(100);
    give[0]("t1");
    await pass(1000);
    only("t1", "t2");
    for (let n = 0; n < 3; n++) {
      line().send({ refresh: { left: 60_000 } });
      line().flush?.();
      await pass(1100);
    }
    const lines = () => new Set(world.requests.map(({ body }) => JSON.parse(body).hello.line)).size;
    const before = lines();
    give[1]("t2");
    await pass(3000);
    assert.deepEqual([lines() - before, give.length, world.shown.at(-1).text, client.state.name], [1, 2, "t2", "online"]);
    line().send({ refresh: { left: 60_000 } });
    line().flush?.();
    await pass(1100);
    assert.equal(give.length, 3, "and the next time again");
    client.close();
  });
}

test("a 401 is asked about once, its body is given back, and something in between that refuses everybody makes nothing spin", async () => {
  let cancelled = 0;
  const refused = () => ({ ok: false, status: 401, body: { cancel: async () => (cancelled++, Promise.reject(new Error("gone"))) } });
  const { internal, heard, asked, turn } = bare(["t1", "t2", "t3"], [refused(), refused(), refused(), { ok: true, status: 200 }]);
  assert.equal((await internal.env.fetch("/sse", { headers: { a: "b" } })).status, 401);
  assert.equal((await internal.env.fetch("/sse", {})).status, 200);
  await turn();
  assert.deepEqual([heard, asked(), cancelled], [["Bearer t1", "Bearer t2", "Bearer t2", "Bearer t3"], 3, 2]);
  const { world, client, asked: often, pass } = setup({ transports: ["sse", "poll"] });
  world.known = undefined;
  world.refuse = () => ({ status: 401, body: "<html>" });
  await pass(60_000);
  assert.equal(client.state.reason.code, "refused");
  assert.ok(world.requests.length < 60 && often.length <= world.requests.length / 2 + 1, `${world.requests.length} requests, ${often.length} tokens`);
  client.close();
});

test("300 random schedules of tokens that end, an issuer that is slow or away, and a network that breaks: it never fails, and nothing is lost", async () => {
  for (let seed = 1; seed <= 300; seed++) {
    const world = new World(seed);
    const random = dice(seed);
    world.latency = () => 1 + random() * 200;
    /** Each token holds for a while from when it was handed out. */
    const until = new Map();
    world.known = { has: (text) => until.get(text) > world.clock.now };
    let away = false;
    const wait = (ms) => new Promise((done) => world.clock.setTimeout(done, ms));
    const token = async () => {
      await wait(random() * 1000);
      if (away) throw new Error("the issuer is away");
      const text = `t${until.size + 1}`;
      until.set(text, world.clock.now + 20_000 + random() * 20_000);
      return text;
    };
    const client = connect("/realtime", { env: world.env(), auth: bearer(token), timing: { upward: [3000] } });
    const seen = [];
    const states = [];
    client.onState(({ name }) => states.push(name));
    client.channel("room", { after: "earliest" }).subscribe(({ data }) => seen.push(data));
    let sent = 0;
    for (let step = 0; step < 40; step++) {
      const what = random();
      if (what < 0.4) world.append("room", ++sent);
      else if (what < 0.5) world.cut(() => random() < 0.7);
      else if (what < 0.6) client.transports = ways.filter(() => random() < 0.7);
      else if (what < 0.65) away = !away;
      else for (const { line } of [...world.connections]) if (random() < 0.5) line?.send(what < 0.9 ? { refresh: { left: 5000 } } : { close: { code: "expired", class: "now" } });
      await world.clock.pass(random() * 4000);
    }
    away = false;
    client.transports = ways;
    await world.clock.pass(120_000);
    assert.ok(!states.includes("failed"), `seed ${seed}`);
    assert.deepEqual([client.state.transport, seen], ["websocket", Array.from({ length: sent }, (_, n) => n + 1)], `seed ${seed}`);
    client.close();
    await world.clock.pass(2000);
    assert.deepEqual([world.breaches, world.warnings], [[], []], `seed ${seed}`);
  }
});

for (const way of ways) {
  test(`${way}: a token function that never settles is called again`, async () => {
    const world = new World();
    world.known = new Set(["t1", "t3"]);
    let asked = 0;
    const client = connect("/realtime", {
      env: world.env(),
      transports: [way],
      auth: bearer(() => (++asked === 2 ? new Promise(() => {}) : `t${asked}`)),
    });
    client.channel("room").subscribe(() => {});
    await world.clock.pass(1000);
    world.known = new Set(["t3"]);
    world.cut();
    await world.clock.pass(30_000);
    assert.deepEqual([client.state.name, world.shown.at(-1).text], ["online", "t3"]);
    client.close();
  });
}
