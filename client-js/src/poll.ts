import { broken } from "./error.js";
import { post, refusal, run, type Frame, type Opener } from "./wire.js";

/** The answer of a poll (P5.3, P6.4). */
interface Answer extends Pick<Frame, "open" | "close"> {
  events?: Frame[];
  gaps?: Frame[];
  ends?: Frame[];
  positions?: Record<string, string>;
}

/** An answer in the order in which its frames would come on a stream. */
function* frames(answer: Answer): Generator<Frame> {
  yield* answer.ends ?? [];
  yield* answer.gaps ?? [];
  yield* answer.events ?? [];
  for (const [channel, position] of Object.entries(answer.positions ?? {})) yield { channel, position };
  if (answer.close) yield { close: answer.close };
}

/** A loop of polls. Each is asked with the positions received, and taken whole or not at all: a lost answer loses nothing. */
export const openPoll: Opener = (wire, owner) =>
  run(owner, async (signal) => {
    const { env, timing } = wire;
    let wait = 0; // the first is answered at once, and shows that polls work
    while (!signal.aborted) {
      const asked = env.now();
      const response = await post(wire, `/poll?wait=${wait}ms`, owner, signal);
      if (!response.ok) return refusal(response, env.now());
      const answer = (await response.json()) as Answer;
      if (!answer.open) return [broken("not an answer of the server"), false];
      owner.frame(wait ? {} : { open: answer.open });
      for (const frame of frames(answer)) owner.frame(frame);
      // Somebody in between who answers at once, with nothing, must not make us spin.
      const idle = !answer.events?.length && !answer.gaps?.length && !answer.ends?.length;
      const spare = asked + 1000 - env.now();
      if (wait && idle && spare > 0) await new Promise<void>((done) => env.setTimeout(done, spare));
      wait = Math.min(timing.wait, answer.open.heartbeat);
    }
    return [broken("left"), false];
  });
