import { broken } from "./error.js";
import { sseParser } from "./sse-parser.js";
import { post, run, type Frame, type Opener } from "./wire.js";

/** A stream of Server-Sent Events, read by fetch: unlike EventSource it takes a body, and shows the status. */
export const openSSE: Opener = (wire, owner) =>
  run(owner, async (signal) => {
    const response = await post(wire, "/sse", owner.hello(), { signal });
    if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) throw broken("not an answer");
    const reader = response.body!.getReader();
    const parse = sseParser((data) => owner.frame(JSON.parse(data) as Frame));
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw broken("no answer");
      parse(value);
    }
  });
