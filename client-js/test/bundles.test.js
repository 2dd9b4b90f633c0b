import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { runInThisContext } from "node:vm";
import { World } from "./world.js";

// The files that the server serves, with their names shortened: they fit each other.
const served = new URL("../../server/", import.meta.url);

async function round({ bearer, connect, call, presence, ThroughlineError }) {
  const world = new World();
  world.known = new Set(["t1", "t2"]);
  let tokens = 0;
  const client = connect("/realtime", { env: world.env(), buffer: 2, auth: bearer(() => `t${++tokens}`) });
  const ann = { id: "s1", subject: "ann" };
  world.attend("room", [ann]);
  const room = client.channel("room", { after: "earliest" });
  const got = [];
  (async () => {
    for await (const { data } of room) {
      got.push(data);
      await new Promise((done) => world.clock.setTimeout(done, 10));
    }
  })();
  const here = presence(client, "room");
  for (let n = 0; n < 8; n++) world.append("room", n);
  await world.clock.pass(1000);
  const { line } = [...world.connections].find((one) => one.line);
  line.send({ refresh: { left: 60_000 } });
  const published = room.publish(8);
  const sum = call(client, "add", [1, 2]);
  const refused = call(client, "none").catch((error) => error);
  await world.clock.pass(1000);
  assert.equal((await published).position, "1.9");
  assert.equal(await sum, 3);
  assert.ok((await refused) instanceof ThroughlineError);
  assert.deepEqual(here.members, [ann]);
  assert.deepEqual(got, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
  assert.deepEqual([world.breaches, world.warnings], [[], []]);
  const past = [];
  const reading = (async () => {
    const bounds = { after: "1.1", until: "1.8", since: 0, before: new Date(2 ** 40), filter: { types: ["message"] }, page: 4, onGap: () => {} };
    for await (const event of room.history({ ...bounds, backwards: true, limit: 6 })) past.push(event);
  })();
  let read = false;
  reading.finally(() => (read = true));
  while (!read) {
    await world.clock.pass(10);
    await new Promise((done) => setImmediate(done)); // the module is loaded in real time
  }
  await reading;
  assert.deepEqual(past.map(({ data, position, type, tags }) => [data, position, type, tags.length]), [7, 6, 5, 4, 3, 2].map((n) => [n, `1.${n + 1}`, "message", 0]));
  assert.deepEqual(world.asks.map((query) => [...query.keys()].sort().join()), Array(2).fill("after,before,channel,limit,order,since,type,until"));
  world.append("gift", 1);
  const gift = [];
  client.channel("gift", { after: "earliest" }).subscribe(({ data }) => gift.push(data));
  await world.clock.pass(1);
  line.give("gift");
  world.append("gift", 2);
  await world.clock.pass(1000);
  assert.deepEqual(gift, [1, 2]);
  assert.deepEqual([...new Set(world.shown.map(({ text }) => text))], ["t1", "t2"]);
  client.close();
}

test("the modules", async () => {
  const entries = await Promise.all(["client.js", "call.js", "presence.js", "auth.js"].map((file) => import(new URL(file, served))));
  await round(Object.assign({}, ...entries));
});

test("the script", async () => {
  runInThisContext(readFileSync(new URL("client.global.js", served), "utf8"));
  await round(globalThis.Throughline);
});
