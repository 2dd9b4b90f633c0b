/**
 * Presence: who is in a channel, beside the client and without it inside.
 *
 *     import { presence } from "/realtime/presence.js";
 *     const here = presence(client, "room:42");
 *     here.onChange(() => show(here.members, here.total));
 */
import type { ThroughlineError } from "./error.js";
import type { Client, SignalOptions } from "./types.js";
import type { Frame, Member } from "./wire.js";

export type { Member };

/** Who is in one channel, kept up to date. */
export interface Presence {
  /** Those who are here; empty while there are too many to tell, and before the first answer. */
  readonly members: readonly Member[];
  /** How many they are. */
  readonly total: number;
  /** Set if it was refused or has ended; then nothing changes any more. */
  readonly error: ThroughlineError | undefined;
  /** Calls back after each change. */
  onChange(callback: () => void, options?: SignalOptions): () => void;
  close(): void;
}

/** What is known of a channel, for all who ask. */
interface Room {
  /** Undefined while not known. */
  members?: Map<string, Member>;
  list: readonly Member[];
  version?: string;
  total: number;
  error?: ThroughlineError;
  users: number;
  readonly listeners: Set<() => void>;
}

const offices = new WeakMap<Client, Map<string, Room>>();

/** Asks who is in a channel, until it is closed or the signal aborts. All who ask for one channel share what is known. */
export function presence(client: Client, channel: string, { signal }: SignalOptions = {}): Presence {
  const rooms = offices.get(client) ?? office(client);
  let room = rooms.get(channel);
  if (!room) {
    rooms.set(channel, (room = { list: [], total: 0, users: 0, listeners: new Set() }));
    client.internal.announce();
  }
  const { listeners } = room;
  const mine = room;
  const own = new Set<() => void>();
  let open = true;
  mine.users++;

  const close = (): void => {
    signal?.removeEventListener("abort", close);
    if (!open) return;
    open = false;
    own.forEach((listener) => listeners.delete(listener));
    if (--mine.users || rooms.get(channel) !== mine) return;
    rooms.delete(channel);
    client.internal.announce();
  };
  signal?.addEventListener("abort", close);
  if (signal?.aborted) close();
  else client.connect();

  return {
    get members() {
      return mine.list;
    },
    get total() {
      return mine.total;
    },
    get error() {
      return mine.error;
    },
    onChange(callback, options = {}) {
      const listener = (): void => callback(); // of its own, for who adds one twice
      const remove = (): void => {
        own.delete(listener);
        listeners.delete(listener);
        options.signal?.removeEventListener("abort", remove);
      };
      if (!open || options.signal?.aborted) return remove;
      own.add(listener);
      listeners.add(listener);
      options.signal?.addEventListener("abort", remove);
      return remove;
    },
    close,
  };
}

/** The rooms of one client, and their place at its door. */
function office(client: Client): Map<string, Room> {
  const { internal } = client;
  const { env, timing, failure } = internal;
  const rooms = new Map<string, Room>();
  offices.set(client, rooms);

  function tell(room: Room): void {
    for (const listener of [...room.listeners]) {
      try {
        listener();
      } catch (cause) {
        env.console.error("throughline: a callback threw", cause);
      }
    }
  }

  function end(channel: string, room: Room, error?: ThroughlineError): void {
    rooms.delete(channel);
    room.error = error;
    tell(room);
  }

  function hear({ channel, presence }: Frame): void {
    const room = rooms.get(channel!);
    if (!room || !presence) return;
    if (presence.end) {
      const error = failure(presence.end);
      if (error.class === "never") end(channel!, room, error);
      else env.setTimeout(internal.announce, (error.after ?? 0) + env.random() * timing.base);
      return;
    }
    const { version, total, members, joined, left } = presence;
    if (version === room.version) return; // a line that attached again found no change
    if (members) room.members = new Map();
    else if (!joined && !left) room.members = undefined; // too many to tell
    for (const member of [...(members ?? []), ...(joined ?? [])]) room.members?.set(member.id, member);
    for (const id of left ?? []) room.members?.delete(id);
    room.list = [...(room.members?.values() ?? [])];
    room.version = version;
    room.total = total ?? room.list.length;
    tell(room);
  }

  internal.presence = {
    hear,
    list: () => [...rooms].map(([channel, { version }]) => ({ channel, seen: version })),
  };
  client.onState((state) => {
    if (state.name === "failed") rooms.forEach((room, channel) => end(channel, room, state.error));
  });
  return rooms;
}
