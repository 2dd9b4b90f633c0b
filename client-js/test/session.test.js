import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../.build/index.js";
import { World } from "./world.js";

const ALL = ["websocket", "sse", "poll"];

function setup(options = {}, seed = 1) {
  const world = new World(seed);
  const client = connect("/realtime", { ...options, env: world.env(options.env) });
  return { world, client, pass: (ms) => world.clock.pass(ms), line: () => [...world.connections].find(({ line }) => line && !line.hello.probe)?.line };
}

const hellos = (world) => world.opened.map(({ hello }) => hello).filter(({ probe }) => !probe);

for (const transport of ALL) {
  test(`P6.16 ${transport}: the token is presented from then on, and kept nowhere else`, async () => {
    const { world, client, pass } = setup({ transports: [transport] });
    client.channel("c").subscribe(() => {});
    await pass(1000);
    world.cut();
    await pass(3000);
    const all = hellos(world);
    assert.equal(all[0].token, "");
    assert.ok(all.length > 1 && all.slice(1).every(({ token }) => token === "token-1"));
    assert.ok(![...world.memory.values(), ...world.memory.keys()].some((text) => String(text).includes("token-1")));
    client.close();
  });

  test(`P6.17 ${transport}: superseded: a new session from the positions received, with line numbers that rise, and without spinning`, async () => {
    const { world, client, pass, line } = setup({ transports: [transport] });
    const got = [];
    client.channel("c", { after: "earliest" }).subscribe((event) => got.push(event.data));
    world.append("c", 1);
    await pass(1000);
    const before = world.opened.at(-1).hello.line;
    line().goodbye({ code: "superseded", class: "now" });
    await pass(3000);
    const after = hellos(world).find((hello) => hello.line > before);
    assert.equal(after.token, "");
    assert.deepEqual(after.channels, [{ channel: "c", after: "1.1" }]);
    world.append("c", 2);
    await pass(1000);
    assert.deepEqual(got, [1, 2]);
    // Refused so again and again.
    const from = world.requests.length;
    world.refuse = () => ({ status: 409, body: { error: { code: "superseded", class: "now" } } });
    world.cut();
    await pass(60_000);
    assert.ok(world.requests.length - from < 30, `${world.requests.length - from} attempts in a minute`);
    client.close();
  });

  test(`P6.18 ${transport}: a full iteration pauses its channel, and goes on from its position; left, it is unsubscribed`, async () => {
    const { world, client, pass, line } = setup({ transports: [transport], buffer: 4 });
    const iterator = client.channel("c", { after: "earliest" }).events();
    client.channel("other", { after: "earliest" }).subscribe(() => {});
    for (let n = 1; n <= 20; n++) world.append("c", n);
    const first = iterator.next();
    await pass(3000);
    await first;
    assert.ok(line().paused.has("c"));
    assert.ok(line().cursors.has("other"));
    if (transport !== "websocket") assert.equal(hellos(world).at(-1).channels.find(({ channel }) => channel === "c").paused, true);
    // It stays paused on the next line.
    world.cut();
    await pass(5000);
    assert.ok(line().paused.has("c"));
    for (let n = 2; n <= 20; n++) {
      const next = iterator.next();
      await pass(1000);
      assert.equal((await next).value.data, n);
    }
    assert.ok(line().cursors.has("c"));
    for (let n = 1; n <= 20; n++) world.append("c", n);
    await pass(3000);
    assert.ok(line().paused.has("c"));
    await iterator.return();
    await pass(1000);
    assert.ok(!line().paused.has("c") && !line().cursors.has("c"), "left");
    const again = client.channel("c", { after: "earliest" }).events();
    const value = again.next();
    await pass(2000);
    assert.equal((await value).value.data, 1);
    assert.deepEqual(world.breaches, []);
    client.close();
  });
}

test("a poll of paused channels does not spin, and a reader that comes back does not wait for it", async () => {
  const { world, client, pass } = setup({ transports: ["poll"], buffer: 2 });
  const iterator = client.channel("c", { after: "earliest" }).events();
  for (let n = 1; n <= 9; n++) world.append("c", n);
  const first = iterator.next();
  await pass(3000);
  await first;
  const from = world.requests.length;
  await pass(60_000);
  assert.ok(world.requests.length - from < 62);
  await iterator.next();
  await iterator.next();
  const next = iterator.next();
  await pass(1000);
  assert.equal((await next).value.data, 4);
  client.close();
});

test("P6.18: whoever leaves or reads on while a pause is under way", async () => {
  const { world, client, pass, line } = setup({ transports: ["websocket"], buffer: 2 });
  const iterator = client.channel("c", { after: "earliest" }).events();
  for (let n = 1; n <= 9; n++) world.append("c", n);
  await Promise.all([iterator.next(), pass(45)]);
  await iterator.return();
  await pass(100);
  assert.ok(!line().paused.has("c") && !line().cursors.has("c"), "left, and the server knows");
  // A new line, with a channel paused: it is read on at once, and subscribed when the end came.
  const other = client.channel("d", { after: "earliest" }).events();
  for (let n = 1; n <= 9; n++) world.append("d", n);
  await Promise.all([other.next(), pass(100)]);
  world.cut();
  while (world.opened.length < 2) await pass(5);
  for (let n = 2; n <= 9; n++) assert.equal((await Promise.all([other.next(), pass(n < 4 ? 0 : 500)]))[0].value.data, n);
  assert.deepEqual(world.breaches, []);
  client.close();
});

test("a gap that was told is settled, and the next event of the handle carries it all the same", async () => {
  const { world, client, pass, line } = setup({ transports: ["websocket"] });
  const room = client.channel("c");
  room.onGap(() => {});
  const got = [];
  const stop = room.subscribe((event) => got.push(event));
  await pass(1000);
  world.channel("c").events.push(...Array(5).fill({}));
  line().cursors.set("c", 5);
  line().send({ channel: "c", gap: { from: "1.0", to: "1.5", reason: "trimmed" } });
  await pass(50);
  stop();
  assert.equal(room.position, "1.5");
  room.subscribe((event) => got.push(event));
  await pass(100);
  world.append("c", 6);
  await pass(100);
  world.append("c", 7);
  await pass(100);
  assert.deepEqual(got.map(({ data, gap }) => [data, gap?.from, gap?.to]), [[6, "1.0", "1.5"], [7, undefined, undefined]]);
  client.close();
});

test("P6.18: an end that crosses a pause ends the channel, and one that says later is come back to", async () => {
  const { world, client, pass, line } = setup({ transports: ["websocket"], buffer: 2 });
  const errors = [];
  const start = (name) => {
    const iterator = client.channel(name, { after: "earliest" }).events();
    for (let n = 1; n <= 9; n++) world.append(name, n);
    return iterator;
  };
  const [a, b] = [start("a"), start("b")];
  await Promise.all([a.next(), b.next(), pass(45)]);
  line().cursors.clear(); // so that the pauses find nothing
  line().send({ channel: "a", end: { code: "forbidden", class: "never" } });
  line().send({ channel: "b", end: { code: "unavailable", class: "later", after: 1000 } });
  await pass(20);
  const rest = async (iterator) => {
    const got = [];
    try {
      for await (const { data } of iterator) got.push(data);
    } catch (error) {
      got.push(error.code);
    }
    errors.push(got);
  };
  rest(a);
  rest(b);
  await pass(10_000);
  assert.equal(errors.length, 1);
  assert.equal(errors[0].at(-1), "forbidden");
  client.close();
  await pass(10);
  assert.deepEqual(errors[1], [2, 3, 4, 5, 6, 7, 8, 9]);
});

for (const transport of ["websocket", "sse"]) {
  test(`P6.19 ${transport}: a channel that the server names is tracked, presented, joined where it is, and stays`, async () => {
    const { world, client, pass, line } = setup({ transports: [transport] });
    client.connect();
    await pass(1000);
    world.append("g", 1);
    line().give("g");
    await pass(100);
    world.append("g", 2);
    await pass(100);
    world.cut();
    await pass(3000);
    assert.deepEqual(hellos(world).at(-1).channels, [{ channel: "g", after: "1.2" }]);
    const opened = world.opened.length;
    const got = [];
    const stop = client.channel("g", { after: "earliest" }).subscribe((event) => got.push(event.data));
    await pass(100);
    world.append("g", 3);
    await pass(100);
    assert.deepEqual(got, [3]);
    assert.equal(world.opened.length, opened, "it is on the wire already");
    stop();
    await pass(1000);
    assert.ok(line().cursors.has("g"), "it was given");
    const errors = [];
    client.channel("g").subscribe(() => {}, { onError: (error) => errors.push(error.code) });
    line().remove("g");
    await pass(1000);
    assert.deepEqual(errors, ["removed"]);
    world.cut();
    await pass(3000);
    assert.deepEqual(hellos(world).at(-1).channels, []);
    assert.deepEqual(world.breaches, []);
    client.close();
  });
}

for (const after of ["earliest", "last=1", "1.1"]) {
  test(`P6.19: a gift and a question (after ${after}) meet on the way: the answer to the question counts, and nothing comes twice`, async () => {
    for (const late of [false, true]) {
      const { world, client, pass, line } = setup({ transports: ["websocket"] });
      client.connect();
      await pass(1000);
      for (const n of [1, 2]) world.append("g", n);
      const got = [];
      const gaps = [];
      const channel = client.channel("g", { after });
      channel.onGap((gap) => gaps.push(gap));
      channel.subscribe((event) => got.push(event.data));
      await pass(late ? 15 : 1); // the question is under way, or has arrived
      line().give("g");
      world.append("g", 3);
      await pass(1000);
      world.append("g", 4);
      await pass(1000);
      assert.deepEqual(gaps, []);
      assert.deepEqual(got, after === "earliest" ? [1, 2, 3, 4] : after === "1.1" || late ? [2, 3, 4] : [3, 4]);
      assert.equal(channel.position, "1.4");
      // The next line knows where it is, and a channel that was left is left.
      world.cut();
      await pass(3000);
      assert.deepEqual(hellos(world).at(-1).channels, [{ channel: "g", after: "1.4" }]);
      assert.deepEqual(world.breaches, []);
      client.close();
    }
  });
}

test("P6.19: a question that a gift crossed is answered by a gap, by an end, or never, as its line ends", async () => {
  for (const answer of ["gap", "end", "cut", "left"]) {
    const { world, client, pass, line } = setup({ transports: ["websocket"] });
    client.connect();
    await pass(1000);
    for (const n of [1, 2]) world.append("g", n);
    const got = [];
    const gaps = [];
    const errors = [];
    const channel = client.channel("g", { after: "1.0" });
    channel.onGap(({ from, to }) => gaps.push([from, to]));
    const stop = channel.subscribe((event) => got.push(event.data), { onError: ({ code }) => errors.push(code) });
    await pass(1);
    line().give("g");
    if (answer === "gap") world.trim("g");
    if (answer === "end") world.refuseChannel = () => ({ code: "forbidden", class: "never" });
    world.append("g", 3);
    if (answer === "cut") world.clock.setTimeout(() => world.cut(), 15); // the gift has come, the answer has not
    if (answer === "left") stop();
    await pass(5000);
    world.append("g", 4);
    await pass(1000);
    const want = { gap: [[3, 4], [["1.0", "1.2"]], []], end: [[], [], ["forbidden"]], cut: [[1, 2, 3, 4], [], []], left: [[], [], []] };
    assert.deepEqual([got, gaps, errors], want[answer], answer);
    assert.equal(line().cursors.has("g"), answer === "gap" || answer === "cut", answer);
    assert.deepEqual(world.breaches, []);
    client.close();
  }
});

test("P6.19: taken away and given again in one breath, a channel is a gift again", async () => {
  const { world, client, pass, line } = setup({ transports: ["sse"] });
  client.connect();
  await pass(1000);
  line().give("g");
  await pass(100);
  // One chunk, as a server writes them.
  line().connection.chunk(new TextEncoder().encode(['{"channel":"g","end":{"code":"removed","class":"never"}}', '{"channel":"g","position":"1.0","given":true}'].map((data) => `data: ${data}\n\n`).join("")));
  await pass(100);
  world.cut();
  await pass(3000);
  assert.deepEqual(hellos(world).at(-1).channels, [{ channel: "g", after: "1.0" }]);
  client.close();
});

test("P6.7: what comes of a channel on a probe is nobody's", async () => {
  const { world, client, pass } = setup();
  world.network.websocket = "refuse";
  const got = [];
  client.channel("c").subscribe((event) => got.push(event.data));
  await pass(3000);
  assert.equal(client.state.transport, "sse");
  world.network.websocket = "ok";
  client.transports = ["sse", "poll"];
  client.transports = ALL;
  let probe;
  for (let n = 0; n < 500 && !probe; n++) {
    await pass(5);
    probe = [...world.connections].find(({ line }) => line?.hello.probe)?.line;
  }
  const { position } = client.channel("c");
  probe.send({ channel: "c", position: "1.9", type: "message", data: "stray" });
  probe.send({ channel: "d", position: "1.9" });
  await pass(3000);
  assert.equal(client.state.transport, "websocket");
  assert.deepEqual(got, []);
  assert.equal(client.channel("c").position, position);
  assert.deepEqual(hellos(world).at(-1).channels, [{ channel: "c", after: "1.0" }], "of the probe's channel nothing is known");
  client.close();
});

for (const transport of ALL) {
  test(`P6.18 ${transport}: a slow reader asks seldom: a channel goes on when half of the buffer is read`, async () => {
    const { world, client, pass } = setup({ transports: [transport], buffer: 20 });
    for (let n = 1; n <= 200; n++) world.append("c", n);
    const iterator = client.channel("c", { after: "earliest" }).events();
    for (let n = 1; n <= 200; n++) {
      const next = iterator.next();
      await pass(500);
      assert.equal((await next).value.data, n);
    }
    // 20 at first, then 10 each time. A poll that is answered before its channel is paused may ask once more each time.
    assert.ok(world.asked.length >= 18 && world.asked.length <= (transport === "poll" ? 40 : 20), `asked ${world.asked.length} times`);
    client.close();
  });
}

test("P6.20: goodbye, by frame and by request, once, and only for a session", async () => {
  for (const transport of ALL) {
    for (const how of ["close", "pagehide", "cache"]) {
      const { world, client, pass } = setup({ transports: [transport] });
      client.channel("c").subscribe(() => {});
      await pass(1000);
      const { line } = hellos(world).at(-1);
      if (how === "close") client.close();
      else world.page("pagehide", { persisted: how === "cache" });
      await pass(1000);
      const said = world.said.map(({ by, frame, head }) => [by, frame.close, head?.token]);
      const want = transport === "websocket" ? ["websocket", {}, undefined] : ["request", { line }, "token-1"];
      assert.deepEqual(said, how === "cache" ? [] : [want], `${transport} ${how}`);
      if (said.length && transport !== "websocket") assert.equal(world.requests.at(-1).keepalive, true);
      if (how === "pagehide") {
        world.page("pageshow");
        await pass(1000);
        assert.equal(hellos(world).find((hello) => hello.line > line).token, "", "that session is over");
      }
      client.close();
    }
  }
  const { world, client, pass } = setup();
  client.close();
  await pass(1000);
  assert.equal(world.requests.length, 0);
});

test("settled: at any time the position is before what is not handled, and after what is", async () => {
  for (const transport of ALL) {
    const { world, client, pass } = setup({ transports: [transport] });
    for (let n = 1; n <= 6; n++) world.append("c", n);
    const room = client.channel("c", { after: "1.2" });
    const seen = [];
    const stop = room.subscribe(({ data, position }) => {
      seen.push([data, room.position]);
      if (data === 5) {
        stop();
        assert.equal(room.position, position, "leaving is done with it");
      }
    });
    await pass(1000);
    assert.deepEqual(seen, [[3, "1.2"], [4, "1.3"], [5, "1.4"]]);
    assert.equal(room.position, "1.5");
    const got = [];
    for await (const event of (pass(2000), room)) {
      got.push(event.data);
      assert.equal(room.position, "1.5");
      break;
    }
    assert.deepEqual(got, [6]);
    assert.equal(room.position, "1.6");
    client.close();
  }
});

test("settled: another sink that leaves before its turn has not received the event", async () => {
  const { world, client, pass } = setup({ transports: ["websocket"] });
  const [one, two] = [client.channel("c"), client.channel("c")];
  const got = [];
  const gaps = [];
  let stop;
  one.subscribe(() => stop?.());
  stop = two.subscribe((event) => got.push(event.data));
  two.onGap(({ from, to }) => gaps.push([from, to]));
  await pass(1000);
  world.append("c", 1);
  await pass(100);
  assert.equal(two.position, "1.0");
  stop = undefined;
  two.subscribe((event) => got.push(event.data));
  assert.deepEqual(gaps, [["1.0", "1.1"]]);
  client.close();
});

test("settled: a gap is, when it was told or when its event is handled", async () => {
  for (const told of [true, false]) {
    const { world, client, pass, line } = setup({ transports: ["websocket"] });
    const room = client.channel("c", { after: "earliest" });
    const got = [];
    if (told) room.onGap(() => {});
    (async () => {
      for await (const event of room) {
        got.push(event);
        await new Promise((done) => world.clock.setTimeout(done, 100));
      }
    })();
    world.append("c", 1);
    await pass(50);
    line().send({ channel: "c", gap: { from: "1.1", to: "1.5", reason: "trimmed" } });
    await pass(20);
    assert.equal(room.position, "1.0", "one is in hand");
    await pass(200);
    assert.equal(room.position, told ? "1.5" : "1.1");
    line().send({ channel: "c", position: "1.6", type: "message", data: 6 });
    await pass(50);
    assert.equal(room.position, told ? "1.5" : "1.1");
    assert.deepEqual(got[1].gap, { from: "1.1", to: "1.5", reason: "trimmed" });
    await pass(200);
    assert.equal(room.position, "1.6");
    client.close();
  }
});

test("P8.5: a carrier that is closed to the session is like one that does not work", async () => {
  const { world, client, pass } = setup();
  const got = [];
  client.channel("c", { after: "earliest" }).subscribe((event) => got.push(event.data));
  await pass(3000);
  assert.equal(client.state.transport, "websocket");
  const error = { code: "broken_carrier", class: "later", after: 60_000, instead: ["sse", "poll"], message: "broke too often" };
  world.refuse = (route, hello) => (route === "websocket" && !hello.probe ? { status: 503, body: { error } } : undefined);
  world.cut();
  world.append("c", 1);
  await pass(8000);
  assert.deepEqual([client.state.name, client.state.transport], ["online", "sse"], "long before the delay is over");
  assert.deepEqual(got, [1]);
  await pass(120_000);
  const tries = hellos(world).length;
  assert.ok(tries < 40, `${tries} hellos in two minutes`);
  assert.deepEqual([client.state.name, client.state.transport], ["online", "sse"]);
  client.close();
});
