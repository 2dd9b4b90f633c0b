import { broken } from "./error.js";
import { post, run, type Frame, type Opener } from "./wire.js";

/** The answer of a poll (P5.3, P6.4). */
interface Answer extends Pick<Frame, "open" | "close" | "refresh"> {
  events?: Frame[];
  gaps?: Frame[];
  ends?: Frame[];
  presence?: Frame[];
  positions?: Record<string, string>;
}

/** An answer in the order in which its frames would come on a stream. */
function frames({ open, ends = [], gaps = [], events = [], positions = {}, presence = [], refresh, close }: Answer): Frame[] {
  const moves = Object.entries(positions).map(([channel, position]) => ({ channel, position }));
  return [{ open }, ...ends, ...gaps, ...events, ...moves, ...presence, { refresh, close }];
}

/** A loop of polls. Each is asked with the positions received, and taken whole or not at all: a lost answer loses nothing. */
export const openPoll: Opener = (wire, owner) =>
  run(owner, async (signal) => {
    const { env, timing } = wire;
    let wait = 0; // the first is answered at once, and shows that polls work
    while (!signal.aborted) {
      const asked = env.now();
      const response = await post(wire, `/poll?wait=${wait}ms`, owner.hello(), { signal });
      const answer = (await response.json()) as Answer;
      if (!answer.open) throw broken("not an answer");
      for (const frame of frames(answer)) owner.frame(frame);
      // Somebody in between who answers at once, with nothing, must not make us spin.
      const idle = !answer.events?.length && !answer.gaps?.length;
      const spare = asked + 1000 - env.now();
      if (wait && idle && spare > 0) await new Promise<void>((done) => env.setTimeout(done, spare));
      wait = Math.min(timing.wait, answer.open.heartbeat);
    }
    throw broken("no answer");
  });
