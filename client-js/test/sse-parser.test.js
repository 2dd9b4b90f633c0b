import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { sseParser } from "../.build/sse-parser.js";

const encoder = new TextEncoder();

function parse(chunks) {
  const got = [];
  const take = sseParser((data) => got.push(data.trim()));
  chunks.forEach(take);
  return got;
}

test("a stream cut at every place, in two, in three and byte by byte", () => {
  const bytes = encoder.encode("\ufeff: hello\n\nretry: 7\n\ndata: drei €\n\ndata:{\"ü\":\"😀\"}\r\n\r\n:\n\ndatax: no\nevent: e\n\ndata: last\n\ndata: not ended");
  const want = ["drei €", '{"ü":"😀"}', "last"];
  for (let at = 0; at <= bytes.length; at++) {
    assert.deepEqual(parse([bytes.subarray(0, at), bytes.subarray(at)]), want, `cut at ${at}`);
    for (let to = at; to <= bytes.length; to += 7) assert.deepEqual(parse([bytes.subarray(0, at), bytes.subarray(at, to), bytes.subarray(to)]), want);
  }
  assert.deepEqual(parse([...bytes].map((byte) => Uint8Array.of(byte))), want);
});

test("random frames between comments, random cuts", () => {
  const block = fc.oneof(
    fc.json().map((text) => ({ text: `data: ${text}\n\n`, data: text.trim() })),
    fc.constantFrom(":\n\n", "\n", "id: 1\n", "event: data\n").map((text) => ({ text })),
  );
  fc.assert(
    fc.property(fc.array(block, { maxLength: 20 }), fc.array(fc.nat(1000), { maxLength: 10 }), (blocks, cuts) => {
      const bytes = encoder.encode(blocks.map(({ text }) => text).join(""));
      const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
      const chunks = places.slice(1).map((to, n) => bytes.subarray(places[n], to));
      assert.deepEqual(parse(chunks), blocks.filter(({ data }) => data !== undefined).map(({ data }) => data));
    }),
    { numRuns: 3000 },
  );
});

test("a long line takes linear time, a longer one than the bound ends it", () => {
  const chunk = encoder.encode("x".repeat(1000));
  const take = sseParser(() => {}, 10_000_000);
  const from = performance.now();
  take(encoder.encode("data: "));
  for (let n = 0; n < 9000; n++) take(chunk);
  assert.ok(performance.now() - from < 1000);
  assert.throws(() => {
    for (let n = 0; n < 2000; n++) take(chunk);
  }, /too long/);
});

test("a stream of comments is as long as it likes", () => {
  const take = sseParser(() => {}, 1000);
  for (let n = 0; n < 1000; n++) take(encoder.encode(": still here\n"));
});
