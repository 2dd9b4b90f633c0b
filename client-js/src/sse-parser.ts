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

  function endLine(): void {
    const line = parts.join("");
    parts = [];
    if (/^data(:|$)/.test(line)) data.push(line.replace(/data:? ?/, ""));
    if (line) return;
    if (data.length) take(data.join("\n"));
    data = [];
  }

  return (chunk) => {
    let text = decoder.decode(chunk, { stream: true });
    if (!text) return;
    held += text.length;
    // The LF of a CRLF that was cut in two belongs to the CR before.
    const half = afterCR && text[0] === "\n";
    afterCR = text.endsWith("\r");
    if (half) text = text.slice(1);
    const lines = text.split(/\r\n?|\n/);
    lines.forEach((line, n) => {
      if (n) endLine();
      parts.push(line);
    });
    if (lines.length > 1 && !data.length) held = 0;
    if (held > limit) throw new Error("a block of the stream is too long");
  };
}
