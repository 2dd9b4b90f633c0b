/**
 * Calls: request and reply, beside the client and without it inside.
 *
 *     import { call } from "/realtime/call.js";
 *     const sum = await call(client, "add", [1, 2]);
 */
import { backoff } from "./backoff.js";
import type { ThroughlineError } from "./error.js";
import { decode, encode, hex } from "./payload.js";
import type { Client, SignalOptions } from "./types.js";
import type { Frame } from "./wire.js";

export interface CallOptions extends SignalOptions {
  /** Milliseconds until it is given up. Default 30,000; none if `repeatable`. */
  timeout?: number;
  /** The handler may run several times: the call is repeated until it is answered. */
  repeatable?: boolean;
}

const ATTEMPT = 30_000;
let last = 0;

/**
 * Calls what the server's program handles under this name. Once: if the answer is lost it rejects with the code `unknown`, as
 * nobody can say whether it ran. With `repeatable` it is repeated instead, under one key, which the handler sees.
 */
export async function call<T = unknown>(client: Client, name: string, data?: unknown, options: CallOptions = {}): Promise<T> {
  const { env, timing, ask, failure } = client.internal;
  const { signal, repeatable, timeout = repeatable ? Infinity : ATTEMPT } = options;
  const failed = (code: string, message: string): ThroughlineError => failure({ code, class: "never", message });
  const control = new AbortController();
  const abort = (): void => control.abort();
  const payload = await encode(data ?? null).catch(() => {
    throw failed("invalid", "not JSON");
  });
  const key = repeatable ? hex(env.secret()) : undefined;
  const until = env.now() + timeout;
  const left = new Promise<never>((_, reject) => control.signal.addEventListener("abort", () => reject(failed("aborted", "aborted"))));
  left.catch(() => {});
  const unwatch = client.onState(({ name }) => name === "closed" && abort());
  signal?.addEventListener("abort", abort);
  if (signal?.aborted || client.state.name === "closed") abort();
  /** An attempt was lost: it may have run. */
  let lost = false;
  try {
    for (let attempt = 1; ; attempt++) {
      let error: ThroughlineError;
      try {
        const id = ++last;
        const asked = control.signal.aborted || ask({ call: { id, name, ...payload, key } }, id, Math.min(repeatable ? ATTEMPT : timeout, until - env.now()));
        const { answer } = (await Promise.race([left, asked])) as Frame;
        if (!answer!.error) return decode(answer!) as T;
        error = failure(answer!.error);
      } catch (cause) {
        error = cause as ThroughlineError;
        if (typeof error.code !== "string") error = failure({ code: "network", message: "not an answer" });
      }
      if (error.code === "aborted") throw error;
      lost ||= error.code === "network";
      const delay = (error.after ?? 0) + backoff(attempt, env.random(), timing);
      if (!repeatable || error.class === "never" || env.now() + delay > until) {
        // What refuses this attempt says nothing of the one that was lost.
        throw lost ? failed("unknown", `an attempt had no answer, and may have run; the last one: ${error.code}, ${error.message}`) : error;
      }
      await Promise.race([left, new Promise<void>((done) => env.setTimeout(done, delay))]);
    }
  } finally {
    unwatch();
    signal?.removeEventListener("abort", abort);
  }
}
