import { aborted, broken, ThroughlineError } from "./error.js";
import { backoff } from "./backoff.js";
import { onAbort } from "./signal.js";
import { refusal, type Wire } from "./wire.js";
import type { Position, Published, PublishOptions } from "./types.js";

interface Job {
  path: string;
  kind: string;
  body: string | Blob | ArrayBuffer | Uint8Array;
  resolve(published: Published): void;
  reject(error: ThroughlineError): void;
  done: boolean;
  /** Stops listening to its signal. */
  forget?(): void;
}

export interface Publisher {
  publish(channel: string, data: unknown, options?: PublishOptions): Promise<Published>;
  close(): void;
}

/**
 * Publishes once and in order: one message is under way at a time, and it is repeated under its number until it is answered (P7.3).
 * The producer's name is random and secret, made at the first publish.
 */
export function publisher(wire: () => Wire): Publisher {
  const queue: Job[] = [];
  let key = "";
  let number = 0;
  let remembered = Infinity;
  /** The one under way. */
  let current: Job | undefined;
  /** Ends the wait or the request of the job under way. */
  let interrupt: (() => void) | undefined;

  function settle(job: Job, how: () => void): void {
    if (job.done) return;
    job.done = true;
    job.forget?.();
    how();
  }

  async function work(): Promise<void> {
    if (current) return;
    while ((current = queue.shift())) {
      const job = current;
      if (job.done) continue;
      await deliver(job).then(
        (published) => settle(job, () => job.resolve(published)),
        (error: ThroughlineError) => settle(job, () => job.reject(error)),
      );
    }
  }

  async function deliver(job: Job): Promise<Published> {
    const { env, timing } = wire();
    key ||= Array.from(env.secret(), (byte) => (byte + 256).toString(16).slice(1)).join("");
    const seq = ++number;
    const started = env.now();
    for (let attempt = 1; ; attempt++) {
      let delay = 0;
      try {
        return await once(job, seq);
      } catch (cause) {
        const error = cause instanceof ThroughlineError ? cause : broken(String(cause));
        if (error.class === "never" || job.done) throw error;
        delay = (error.after ?? 0) + backoff(attempt, env.random(), timing);
      }
      // A log that has forgotten us would append it again: what became of it can't be found out.
      if (env.now() + delay - started > remembered * 0.9) throw new ThroughlineError("unknown", "never", "no answer in time");
      await pause(delay);
      if (job.done) throw aborted();
    }
  }

  /** One request. Whatever it throws that isn't of class `never` may pass. */
  async function once(job: Job, seq: number): Promise<Published> {
    const { base, env, timing, credentials } = wire();
    const control = new AbortController();
    interrupt = () => control.abort();
    const timer = env.setTimeout(interrupt, timing.publish);
    try {
      const response = await env.fetch!(base + job.path, {
        method: "POST",
        headers: { "Content-Type": job.kind, "Idempotency-Key": key, "Producer-Seq": String(seq) },
        body: job.body as BodyInit,
        credentials,
        signal: control.signal,
      });
      const { status } = response;
      if (!response.ok) {
        const [error, spoken] = await refusal(response, env.now());
        // Something in between answered: of its refusals only these may pass.
        if (!spoken && status < 500 && status !== 408 && status !== 429) throw new ThroughlineError("refused", "never", error.message);
        throw error;
      }
      const body = (await response.json()) as { position: Position; remembered?: number; duplicate?: boolean };
      if (!body.position) throw broken("not an answer of the server");
      remembered = body.remembered || remembered;
      return { position: body.position, duplicate: !!body.duplicate };
    } finally {
      env.clearTimeout(timer);
      interrupt = undefined;
    }
  }

  function pause(ms: number): Promise<void> {
    const { env } = wire();
    return new Promise((done) => {
      const timer = env.setTimeout(done, ms);
      interrupt = () => {
        env.clearTimeout(timer);
        done();
      };
    });
  }

  function publish(channel: string, data: unknown, { type, text, signal }: PublishOptions = {}): Promise<Published> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) throw aborted();
      const [kind, body] = encode(data, text);
      const path = "/publish?channel=" + encodeURIComponent(channel) + (type ? "&type=" + encodeURIComponent(type) : "");
      const abort = (): void => {
        settle(job, () => job.reject(aborted()));
        if (current === job) interrupt?.();
      };
      const job: Job = { path, kind, body, resolve, reject, done: false };
      job.forget = onAbort(signal, abort);
      queue.push(job);
      void work();
    });
  }

  function close(): void {
    const error = aborted("the client was closed");
    for (const job of current ? [current, ...queue] : queue) settle(job, () => job.reject(error));
    interrupt?.();
  }

  return { publish, close };
}

/** JSON, unless it is bytes, or a string that is to be text. JSON is made at once: later changes of the object don't show. */
function encode(data: unknown, text?: boolean): [string, Job["body"]] {
  if (data instanceof Uint8Array || data instanceof ArrayBuffer || data instanceof Blob) return ["application/octet-stream", data.slice(0)];
  if (text) return ["text/plain;charset=utf-8", String(data)];
  const json = JSON.stringify(data);
  if (!json) throw new ThroughlineError("invalid", "never", "this can't be said in JSON");
  return ["application/json", json];
}
