/**
 * Credentials for programs whose login is a token and not a cookie, beside the client and without it inside.
 *
 *     import { bearer } from "/realtime/auth.js";
 *     const client = connect("/realtime", { auth: bearer(() => fetch("/token").then((answer) => answer.text())) });
 */
import type { Auth, Internal, WebSocketLike } from "./types.js";
import type { Frame } from "./wire.js";

export type { Auth };

/**
 * Shows a token with everything the client opens: in the header `Authorization`, and on a WebSocket in the first frame. `token`
 * gives a fresh one. It is called when one is needed: at first, when the server asks for another ahead of its end, and when
 * it refuses the one it was shown. While it rejects, gives what can't be a token, or nothing within 9/10 of `timing.connect`, the client
 * tries again as if the network were away. When the login is over, call `client.close()` in it.
 */
export function bearer(token: () => string | Promise<string>): Auth {
  return (internal: Internal) => {
    const { env, timing, reopen } = internal;
    const { fetch, WebSocket } = env;
    let held: string | undefined;
    let asking: Promise<string> | undefined;
    /** The tokens that were refused in a row: only the first one may have aged. */
    let refused = 0;

    const fresh = (): Promise<string> =>
      (asking ??= inTime(
        Promise.resolve()
          .then(token)
          .then((text) => {
            if (!/^[!-~]+$/.test(text ?? "")) throw new TypeError("not a token"); // nothing, or a page that says what went wrong
            return (held = text);
          }),
      ).finally(() => (asking = undefined)));
    /** One that never settles, as a request on a dead network, is asked for again. What it gives late is taken all the same. */
    const inTime = (promise: Promise<string>): Promise<string> =>
      new Promise((resolve, reject) => {
        const timer = env.setTimeout(() => reject(new Error("no token in time")), timing.connect * 0.9); // before the line is given up
        promise.then(resolve, reject).finally(() => env.clearTimeout(timer));
      });
    const ready = (): Promise<string> => (held === undefined ? fresh() : Promise.resolve(held));
    /** It is no good any more. Says whether that is news: it may have been replaced already. */
    const forget = (text: string): boolean => {
      const news = held === text;
      if (news) held = undefined;
      return news;
    };

    env.fetch &&= (url, init) => {
      const ask = async (text: string): Promise<Response> => {
        const response = await fetch!(url, { ...init, headers: { ...init.headers, Authorization: `Bearer ${text}` } });
        if (response.ok) refused = 0;
        return response;
      };
      const insist = async (text: string): Promise<Response> => {
        const response = await ask(text);
        if (response.status !== 401) return response;
        response.body?.cancel().catch(() => {}); // unread, it would keep its connection
        forget(text);
        return ask(await ready());
      };
      // At once if that can be: a page that is left waits for nothing.
      return held === undefined ? fresh().then(insist) : insist(held);
    };

    env.WebSocket &&= class implements WebSocketLike {
      onopen: WebSocketLike["onopen"] = null;
      onmessage: WebSocketLike["onmessage"] = null;
      onclose: WebSocketLike["onclose"] = null;
      onerror: WebSocketLike["onerror"] = null;
      private inner?: WebSocketLike;
      private gone = false;

      constructor(url: string) {
        ready()
          .then((text) => this.gone || this.begin((this.inner = new WebSocket!(url)), text))
          .catch(() => this.lost());
      }

      /** `text` is what was shown last. */
      private begin(socket: WebSocketLike, text: string): void {
        const show = (fresher: string): void => {
          text = fresher;
          socket.send(JSON.stringify({ credentials: text }));
        };
        socket.onopen = (event: never) => {
          show(held ?? text); // another one may have come meanwhile
          this.onopen?.(event);
        };
        socket.onmessage = (event: never) => {
          if (this.gone) return;
          const { data } = event as { data: string };
          const { open, close, refresh } = /^{"(open|close|refresh)"/.test(data) ? (JSON.parse(data) as Frame) : ({} as Frame);
          if (open) refused = 0;
          if (refresh) {
            // Each socket answers for itself. What is no other than before would not help.
            (held === text ? fresh() : ready()).then((fresher) => this.gone || fresher === text || show(fresher)).catch(() => {});
            return this.onmessage?.({ data: "{}" } as never);
          }
          const code = close?.code;
          const news = (code === "expired" || code === "unauthorized") && forget(text);
          if (code === "unauthorized" && !(news && refused++)) this.lost();
          else this.onmessage?.(event);
        };
        socket.onclose = (event: never) => this.onclose?.(event);
        socket.onerror = (event: never) => this.onerror?.(event);
      }

      /** To the client, a connection that broke. */
      private lost(): void {
        this.onclose?.({ code: 1006, reason: "" } as never);
        this.close();
      }

      send(data: string): void {
        this.inner!.send(data);
      }

      close(): void {
        this.gone = true;
        this.onclose = null;
        this.inner?.close();
      }
    };

    /** Asked for on what fetch has opened, and not there yet. */
    let awaited: Promise<unknown> | undefined;
    internal.refresh = () => {
      const before = held;
      awaited ??= fresh()
        .then((text) => text === before || reopen())
        .catch(() => {}) // it will end as expired, and try again
        .finally(() => (awaited = undefined));
    };
  };
}
