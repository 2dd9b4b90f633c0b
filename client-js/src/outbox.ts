import { backoff } from "./backoff.js";
import { aborted, asError, broken, fromWire, never, ThroughlineError } from "./error.js";
import { encode, hex, type Payload } from "./payload.js";
import { onAbort } from "./signal.js";
import type { Env, Published, PublishOptions, Timing } from "./types.js";
import type { Frame, Outcome, Session } from "./wire.js";

/** A publish that waits, or is under way. */
interface Job {
  readonly channel: string;
  readonly signal?: AbortSignal;
  /** Absent while the bytes of a Blob are read. */
  message?: Payload;
  size: number;
  /** It shares a frame with those of the same part only, as one of several was refused. */
  part?: number;
  fulfil(published: Published): void;
  refuse(error: ThroughlineError): void;
}

/** A publish frame (P9.2). Once it was sent, what it holds stays. */
interface Parcel {
  readonly frame: { seq: number; channel: string; messages: Payload[]; repeat?: boolean };
  readonly jobs: Job[];
  /** When it was first sent so that it may have been tried, by the clock on the wall and by one that nobody sets. */
  sentAt: readonly number[];
}

export interface Outbox {
  publish(channel: string, data: unknown, options?: PublishOptions): Promise<Published>;
  close(): void;
}

/**
 * Publishes once and in order (P9.2–P9.7). One batch is under way at a time; what its answer leaves open is sent again, under
 * its numbers, until it is answered. What certainly was not tried is no repeat: only then can a refusal be told for what it is.
 */
export function outbox(env: Env, timing: Timing, session: Session, most: number, ask: (frame: object, id: number, ms: number) => Promise<Frame>): Outbox {
  let queue: Job[] = [];
  let batch: Parcel[] = [];
  const producer = hex(env.secret());
  let number = 0;
  let attempt = 0;
  let working = false;
  let closed = false;
  let timer: unknown;

  async function work(): Promise<void> {
    if (working) return;
    working = true;
    await null; // what is published in one turn goes together
    for (;;) {
      const now = [env.now(), env.steady()];
      for (const parcel of batch) {
        if (!parcel.frame.repeat) parcel.sentAt = now;
        if (now.some((time, clock) => time - parcel.sentAt[clock]! > session.remembered * 0.9)) settle(parcel, never("unknown", "no answer"));
      }
      if (!batch.length) pack(now);
      if (closed || !batch.length) break;
      try {
        const { published } = await ask({ publish: { producer, frames: batch.map(({ frame }) => frame) } }, 0, timing.publish);
        read(published!);
      } catch (cause) {
        const error = asError(cause);
        if (error.class === "never") {
          for (const parcel of batch) settle(parcel, parcel.frame.repeat ? never("unknown", error.message) : error);
        } else {
          // Only the server itself knows that nothing was done.
          if (error.code === "network") for (const { frame } of batch) frame.repeat = true;
          await new Promise<void>((done) => (timer = env.setTimeout(done, (error.after ?? 0) + backoff(++attempt, env.random(), timing))));
        }
      }
    }
    working = false;
  }

  /** Makes a batch of what waits first: neighbours of one channel share a frame, and each channel has one. */
  function pack(now: readonly number[]): void {
    let size = 0;
    for (const job of [...queue]) {
      const { channel, message } = job;
      const last = batch[batch.length - 1];
      // A quarter of the limit in characters is within it in bytes.
      if (!message || ((size += job.size) > session.limit / 4 && last)) break;
      if (last?.frame.channel === channel && last.jobs[0]!.part === job.part && last.jobs.length < 100) {
        last.frame.messages.push(message);
        last.jobs.push(job);
      } else {
        if (batch.length > 63 || batch.some(({ frame }) => frame.channel === channel)) break;
        batch.push({ frame: { seq: ++number, channel, messages: [message] }, jobs: [job], sentAt: now });
      }
      queue.shift();
    }
  }

  /** Reads the answer to a batch. Throws if something of it is to be sent again. */
  function read(published: Outcome[]): void {
    for (const { seq, position, duplicate, error, retry, tried } of published) {
      const parcel = batch.find(({ frame }) => frame.seq === seq);
      if (!parcel) continue;
      if (retry) {
        parcel.frame.repeat ||= tried;
        throw fromWire({ ...retry, class: "later" });
      }
      attempt = 0;
      const { jobs } = parcel;
      if (error && jobs.length > 1 && error.code !== "unknown") {
        // One of several spoils them all, and none was appended: they are tried in ten parts, before what waits.
        const rest = jobs.splice(0).filter(({ signal }) => !signal?.aborted);
        rest.forEach((job, n) => (job.part = seq + Math.floor((10 * n) / rest.length) / 10));
        queue.unshift(...rest);
      }
      settle(parcel, error && fromWire(error), { position: position!, duplicate: !!duplicate });
    }
    if (batch.length) throw broken("no answer");
  }

  function settle(parcel: Parcel, error: ThroughlineError | undefined, published?: Published): void {
    batch = batch.filter((one) => one !== parcel);
    for (const job of parcel.jobs) {
      if (error) job.refuse(error);
      else job.fulfil(published!);
    }
  }

  function publish(channel: string, data: unknown, { type, text, signal }: PublishOptions = {}): Promise<Published> {
    let forget = (): void => {};
    const promise = new Promise<Published>((resolve, reject) => {
      if (closed || signal?.aborted) throw aborted();
      if (queue.length >= most) throw new ThroughlineError("busy", "later", "outbox is full", timing.base);
      const job: Job = { channel, signal, size: 0, fulfil: resolve, refuse: reject };
      const drop = (error: ThroughlineError): void => {
        queue = queue.filter((one) => one !== job);
        reject(error);
        void work(); // others may have waited for it
      };
      queue.push(job);
      forget = onAbort(signal, () => drop(aborted()));
      encode(data, text).then(
        (payload) => {
          job.message = { type, ...payload } as Payload;
          job.size = JSON.stringify(job.message).length;
          void work();
        },
        () => drop(never("invalid", "not JSON")),
      );
    });
    return promise.finally(() => forget());
  }

  function close(): void {
    closed = true;
    env.clearTimeout(timer);
    for (const job of batch.flatMap(({ jobs }) => jobs).concat(queue)) job.refuse(aborted());
  }

  return { publish, close };
}
