/**
 * The past of a channel, page by page. `channel.history()` loads this when it is first asked, so that who never looks back carries
 * none of it.
 */
import { decode, type Payload } from "./payload.js";
import type { Gap, HistoryEvent, HistoryOptions, Position } from "./types.js";

/** A page as the server answers it (P12.2). */
interface Page {
  events: (Payload & { position: Position; type: string; time: number; key?: string; tags?: string[] })[];
  next: Position;
  done: boolean;
  gap?: Gap;
  trimmed?: boolean;
}

/** The events of a channel. `ask` asks something below the server's address, or rejects with a `ThroughlineError`. */
export async function* history<T>(
  ask: (path: string, init: RequestInit) => Promise<Response>,
  channel: string,
  options: HistoryOptions = {},
): AsyncGenerator<HistoryEvent<T>, void, void> {
  const { backwards, limit = Infinity, page = 100, filter = {}, signal, onGap } = options;
  const query = new URLSearchParams({ channel });
  const set = (name: string, value: unknown): void => {
    if (value !== undefined) query.set(name, String(value));
  };
  set("after", options.after);
  set("until", options.until);
  set("since", options.since?.valueOf());
  set("before", options.before?.valueOf());
  if (backwards) set("order", "desc");
  for (const list of ["types", "tags", "keys"] as const) filter[list]?.forEach((word) => query.append(list.slice(0, -1), word));

  let gap: Gap | undefined;
  const lose = (lost?: Gap): void => {
    if (!lost) return;
    gap = lost;
    onGap?.(lost);
  };
  for (let left = limit; left > 0; ) {
    set("limit", Math.min(left, page));
    const answer = (await (await ask(`/history?${query}`, { method: "GET", signal })).json()) as Page;
    const last = backwards && answer.done; // then the gap lies behind the events
    if (!last) lose(answer.gap);
    for (const { position, type, time, key, tags = [], ...payload } of answer.events) {
      const event = { channel, type, data: decode(payload) as T, position, time: new Date(time), key, tags, gap };
      gap = undefined;
      yield event;
    }
    if (last) lose(answer.gap);
    if (answer.done) return options.onEnd?.({ trimmed: !!answer.trimmed });
    left -= answer.events.length;
    set(backwards ? "until" : "after", answer.next);
  }
}
