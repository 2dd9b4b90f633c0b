/**
 * A parser of `text/event-stream` (WHATWG HTML §9.2) for a protocol that uses nothing but `data:`: it calls back with each block's data.
 * Takes bytes as they come, split anywhere. What it holds is bounded by `limit` characters; past that it throws.
 */
export function sseParser(take: (data: string) => void, limit = 16 * 1024 * 1024): (chunk: Uint8Array) => void {
  const decoder = new TextDecoder(); // drops a byte order mark, keeps half characters
  let parts: string[] = []; // of the line under way: joined once, so that a long line costs linear time
  let held = 0;
  let data: string[] = [];
  let afterCR = false;

  function endLine(tail: string): void {
    const line = parts.length ? parts.join("") + tail : tail;
    parts = [];
    if (line === "") {
      if (data.length) take(data.join("\n"));
      data = [];
    } else if (line === "data") {
      data.push("");
    } else if (line.startsWith("data:")) {
      data.push(line.slice(line[5] === " " ? 6 : 5));
    }
    if (!data.length) held = 0;
  }

  return (chunk) => {
    const text = decoder.decode(chunk, { stream: true });
    const ending = /\r\n?|\n/g;
    // The LF of a CRLF that was cut in two belongs to the CR before.
    let from = 0;
    if (text) {
      from = afterCR && text[0] === "\n" ? 1 : 0;
      afterCR = text.endsWith("\r");
    }
    ending.lastIndex = from;
    for (let hit; (hit = ending.exec(text)); from = ending.lastIndex) endLine(text.slice(from, hit.index));
    if (from < text.length) parts.push(text.slice(from));
    held += text.length;
    if (held > limit) throw new Error("a block of the stream is too long");
  };
}
