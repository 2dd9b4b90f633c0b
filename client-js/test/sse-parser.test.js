import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { sseParser } from "../.build/sse-parser.js";

const encoder = new TextEncoder();

/** The standard, word by word, over the whole text. */
function reference(bytes) {
  const text = new TextDecoder().decode(bytes);
  const lines = text.split(/\r\n|\r|\n/);
  lines.pop(); // not ended yet
  const blocks = [];
  let data = [];
  for (const line of lines) {
    if (line === "") {
      if (data.length) blocks.push(data.join("\n"));
      data = [];
    } else {
      const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === "data") data.push(value);
    }
  }
  return blocks;
}

function parse(chunks) {
  const got = [];
  const take = sseParser((data) => got.push(data));
  chunks.forEach(take);
  return got;
}

test("a stream cut at every place, in two and byte by byte", () => {
  const bytes = encoder.encode("\ufeff: hello\r\ndata: eins\r\ndata:zwei\r\n\r\nid: 7\rdata:  drei €\r\rdata\n\ndata: {\"ü\":\"😀\"}\n\n:\n\ndatax: no\nevent: e\n\ndata: \r\n\r\ndata: last, not ended");
  const want = ["eins\nzwei", " drei €", "", '{"ü":"😀"}', ""];
  assert.deepEqual(reference(bytes), want);
  for (let at = 0; at <= bytes.length; at++) {
    assert.deepEqual(parse([bytes.subarray(0, at), bytes.subarray(at)]), want, `cut at ${at}`);
    for (let to = at; to <= bytes.length; to += 7) assert.deepEqual(parse([bytes.subarray(0, at), bytes.subarray(at, to), bytes.subarray(to)]), want);
  }
  assert.deepEqual(parse([...bytes].map((byte) => Uint8Array.of(byte))), want);
});

test("random streams, random cuts: as the standard says", () => {
  const piece = fc.constantFrom("data", ":", " ", "\r", "\n", "\r\n", "€", "😀", "x", "data: a", "id: 1", "\n\n", "\r\r");
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 40 }), fc.array(fc.nat(100), { maxLength: 10 }), (pieces, cuts) => {
      const bytes = encoder.encode(pieces.join(""));
      const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
      const chunks = places.slice(1).map((to, n) => bytes.subarray(places[n], to));
      // A CR at the end may be half a CRLF, so the reference needs to know that something else follows.
      assert.deepEqual(parse([...chunks, encoder.encode("x")]), reference(encoder.encode(pieces.join("") + "x")));
    }),
    { numRuns: 5000 },
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
