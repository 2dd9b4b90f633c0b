import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { bearer } from "../.build/auth.js";
import { call } from "../.build/call.js";
import { connect } from "../.build/index.js";
import { presence } from "../.build/presence.js";
import { World } from "./world.js";

// The fixtures that the server's tests read too.
const fixtures = JSON.parse(readFileSync(new URL("../../transport/testdata/wire/v1.json", import.meta.url)));
const fixture = (name) => fixtures.find((one) => one.name === name)?.frame ?? assert.fail(`no fixture ${name}`);

/** Members and the types of their values; lists by the shape of what they hold. */
function shape(value) {
  if (Array.isArray(value)) return [...new Set(value.map((one) => JSON.stringify(shape(one))))].sort();
  if (value === null || typeof value !== "object") return typeof value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, key === "data" ? "any" : shape(value[key])]));
}

/** A socket played by hand. */
function played(options) {
  const world = new World();
  const sent = [];
  let socket;
  const env = world.env({
    WebSocket: class {
      constructor() {
        socket = this;
      }
      send(text) {
        sent.push(JSON.parse(text));
      }
      close() {}
    },
    fetch: async (url, { body }) => {
      sent.push(JSON.parse(body));
      throw new Error("offline");
    },
  });
  const client = connect("/realtime", { env, transports: ["websocket"], ...options });
  const say = async (frame) => {
    socket.onmessage({ data: JSON.stringify(frame) });
    await world.clock.pass(0);
  };
  const begin = async (token) => {
    socket.onopen({});
    const { line } = sent.at(-1).hello;
    await say({ open: { ...fixture("open").open, line, token } });
  };
  return { world, client, sent, say, begin, socket: () => socket, pass: (ms) => world.clock.pass(ms) };
}

test("what the client says has the shape of the fixtures", async () => {
  const w = played({ buffer: 1 });
  const { client, sent, say } = w;
  const said = new Set();
  const same = (name, frame = sent.at(-1)) => {
    said.add(name);
    assert.deepEqual(shape(frame), shape(fixture(name)), name);
  };
  const lost = (promise) => promise.catch(() => {});
  lost(client.channel("room:42").publish(null));
  await w.pass(1);
  same("publish, by request");
  lost(call(client, "add", new Uint8Array([0, 1, 2]), { repeatable: true }));
  await w.pass(0);
  same("call, repeatable, by request");
  client.close();

  const v = played({ buffer: 1 });
  const room = v.client.channel("room:42");
  const iterator = room.events();
  iterator.next();
  await v.pass(0);
  v.socket().onopen({});
  same("hello, first", v.sent[0]);
  await v.say({ open: { ...fixture("open").open, line: v.sent[0].hello.line } });
  v.client.channel("room:43", { after: "earliest" }).subscribe(() => {}, { signal: undefined });
  await v.pass(0);
  same("subscribe", v.sent.at(-1));
  v.client.channel("room:44", { filter: { types: ["said"], tags: ["a", "b"], keys: ["k"] } }).subscribe(() => {});
  await v.pass(0);
  same("subscribe, with a filter", v.sent.at(-1));
  await v.say(fixture("opening"));
  await v.say(fixture("event, JSON"));
  await v.say(fixture("event, text"));
  await v.pass(0);
  same("pause", v.sent.at(-1));
  const here = presence(v.client, "room:42");
  await v.pass(0);
  same("presence asked", v.sent.at(-1));
  lost(call(v.client, "add", [1, 2]));
  await v.pass(0);
  same("call", v.sent.at(-1));
  lost(room.publish({ text: "hello" }, { type: "said" }));
  lost(v.client.channel("news").publish(new Uint8Array([0, 1, 2])));
  lost(v.client.channel("news").publish("plain text", { text: true }));
  await v.pass(0);
  const publish = v.sent.at(-1);
  assert.equal(publish.publish.frames.length, 2);
  publish.publish.frames[1].repeat = true; // as it would be, had it been lost
  same("publish", publish);
  await v.say(fixture("presence, snapshot"));
  v.socket().onclose({ code: 1006, reason: "" });
  await v.pass(1000);
  v.socket().onopen({});
  same("hello, with a paused channel and presence", { hello: { ...v.sent.at(-1).hello, channels: v.sent.at(-1).hello.channels.slice(0, 1) } });
  here.close();
  v.client.close();

  const u = played({ transports: ["websocket", "sse"] });
  u.client.channel("room:42", { after: "a1.00000001" }).subscribe(() => {});
  const stop = u.client.channel("news", { after: "last=20" }).subscribe(() => {});
  await u.pass(0);
  await u.begin("a.k1.e30.c2ln");
  stop();
  await u.pass(0);
  same("unsubscribe", u.sent.at(-1));
  u.socket().onclose({ code: 1006, reason: "" });
  u.client.channel("news", { after: "last=20" }).subscribe(() => {});
  await u.pass(200);
  u.socket().onopen({});
  same("hello, resuming", u.sent.at(-1));
  assert.equal(u.sent.at(-1).hello.token, "a.k1.e30.c2ln");
  u.socket().onclose({ code: 1006, reason: "" });
  await u.pass(0);
  u.client.close();
  same("goodbye of the client, by request", u.sent.at(-1));

  const y = played({ auth: bearer(() => "eyJhbGciOiJub25lIn0.e30.") });
  y.client.connect();
  await y.pass(0);
  y.socket().onopen({});
  await y.pass(0);
  same("credentials", y.sent[0]);
  y.client.close();

  const x = played();
  x.client.connect();
  await x.begin("t");
  x.client.close();
  same("goodbye of the client", x.sent.at(-1));

  // A probe: a better carrier that was passed over.
  const p = new World();
  p.network.websocket = "refuse";
  const prober = connect("/realtime", { env: p.env() });
  prober.connect();
  await p.clock.pass(1000);
  p.network.websocket = "ok";
  await p.clock.pass(400_000);
  same("hello, probe", { hello: p.opened.find(({ hello }) => hello.probe).hello });
  prober.close();
  assert.deepEqual(fixtures.filter(({ from }) => from === "client").map(({ name }) => name).filter((name) => !said.has(name)), [], "every frame of ours is here");
});

test("what the server says is taken, and has its effect", async () => {
  let tokens = 0;
  const { client, say, sent, world, begin, pass, socket } = played({ auth: bearer(() => `token-${++tokens}`) });
  const taken = new Set(["open"]);
  const hear = async (name, frame = fixture(name)) => {
    taken.add(name);
    await say(frame);
  };
  const got = [];
  const errors = [];
  const gaps = [];
  const room = client.channel("room:42", { after: "a1.00000001" });
  room.onGap((gap) => gaps.push(gap));
  room.subscribe((event) => got.push(event), { onError: (error) => errors.push(error) });
  const here = presence(client, "room:42");
  await pass(0);
  await begin("a.k1.e30.c2ln");
  await pass(200);
  await hear("heartbeat");
  await hear("refresh");
  await pass(0);
  assert.deepEqual(sent.at(-1), { credentials: "token-2" });
  assert.deepEqual(client.state, { name: "online", transport: "websocket" });
  await hear("opening");
  await hear("opening, given");
  const news = client.channel("news");
  news.subscribe(() => {})();
  assert.equal(news.position, fixture("opening, given").position);
  await hear("a frame of a later build");
  for (const kind of ["JSON", "text", "binary"]) await hear(`event, ${kind}`);
  assert.deepEqual(got.map(({ type, data }) => [type, data]), [["said", { text: "hello" }], ["message", "plain text"], ["message", new Uint8Array([0, 1, 2])]]);
  assert.deepEqual(got.map((event) => [event.key, event.tags, "encoding" in event]), [["m1", ["de", "en"], false], [undefined, undefined, false], [undefined, undefined, false]]);
  await hear("gap");
  assert.deepEqual(gaps, [fixture("gap").gap]);
  assert.equal(room.position, fixture("gap").gap.to);

  await hear("presence, snapshot");
  assert.deepEqual([here.members, here.total], [fixture("presence, snapshot").presence.members, 2]);
  await hear("presence, difference");
  assert.deepEqual(here.members.map(({ id }) => id), ["s1", "s3"]);
  await hear("presence, counts only");
  assert.deepEqual([here.members, here.total], [[], 5000]);
  await hear("presence, refused");
  assert.equal(here.error.code, "forbidden");

  // Answers, by the ids and numbers of what was asked.
  const ask = (name, what) => {
    const answer = call(client, "x", 1).catch((error) => error);
    return pass(0).then(() => hear(name, { answer: { ...fixture(name).answer, id: sent.at(-1).call.id } })).then(() => answer);
  };
  assert.equal(await ask("answer"), 3);
  assert.deepEqual(await ask("answer, binary"), new Uint8Array([0, 1, 2]));
  assert.equal((await ask("answer, refused")).code, "failed");
  const results = ["7", "8", "9", "10"].map((name) => client.channel(name).publish(name).catch((error) => error));
  await pass(0);
  const { frames } = sent.at(-1).publish;
  await hear("published", { published: fixture("published").published.map((one, n) => ({ ...one, seq: frames[n].seq })) });
  assert.deepEqual(await Promise.all(results.slice(0, 2)), fixture("published").published.slice(0, 2).map(({ position, duplicate = false }) => ({ position, duplicate })));
  assert.equal((await results[2]).code, "forbidden");
  await pass(3000);
  assert.deepEqual(sent.at(-1).publish.frames, [{ ...frames[3], repeat: true }]);

  await hear("end, for good");
  assert.deepEqual(errors.map(({ code, message }) => [code, message]), [["forbidden", "not allowed to subscribe"]]);
  const stop = client.channel("room:43").subscribe(() => {});
  await pass(0);
  stop();
  await pass(0);
  await hear("end, as asked");
  client.channel("room:43").subscribe(() => {});
  await pass(0);
  assert.deepEqual(sent.at(-1), { subscribe: [{ channel: "room:43", after: "latest" }] });
  await hear("end, paused"); // of a channel that is no more: nothing
  await hear("goodbye");
  assert.equal(client.state.reason.code, "shutdown");
  await pass(3000);
  socket().onopen({});
  assert.equal(sent.at(-1).hello.token, "a.k1.e30.c2ln");
  await hear("open, the token stays", { open: { ...fixture("open, the token stays").open, line: sent.at(-1).hello.line } });
  socket().onclose({ code: 1006, reason: "" });
  await pass(1000);
  socket().onopen({});
  assert.equal(sent.at(-1).hello.token, "a.k1.e30.c2ln");
  await hear("open, of a probe", { open: { ...fixture("open, of a probe").open, line: sent.at(-1).hello.line } });
  await hear("goodbye, superseded");
  await pass(1000);
  socket().onopen({});
  assert.equal(sent.at(-1).hello.token, "");
  assert.deepEqual(world.warnings, []);
  client.close();
  assert.deepEqual(fixtures.filter(({ from }) => from === "server").map(({ name }) => name).filter((name) => !taken.has(name)), [], "every frame of the server's is here");
});
