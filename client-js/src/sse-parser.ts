/**
 * A parser of the session protocol's streams (P6.4), which are `text/event-stream` of the plainest kind: each frame is one line of
 * `data:`, and every line ends with LF. It calls back with what each such line holds. Takes bytes as they come, split
 * anywhere. What it holds is bounded by `limit` characters; past that it throws.
 */
export function sseParser(take: (data: string) => void, limit = 16 * 1024 * 1024): (chunk: Uint8Array) => void {
  const decoder = new TextDecoder(); // drops a byte order mark, keeps half characters
  let parts: string[] = []; // of the line under way: joined once, so that a long line costs linear time
  let held = 0;
  return (chunk) => {
    decoder
      .decode(chunk, { stream: true })
      .split("\n")
      .forEach((part, n) => {
        if (n) {
          const line = parts.join("");
          if (line.startsWith("data:")) take(line.slice(5));
          parts = [];
          held = 0;
        }
        parts.push(part);
        held += part.length;
      });
    if (held > limit) throw new Error("a line is too long");
  };
}
