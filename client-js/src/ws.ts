import { broken, fromWire } from "./error.js";
import type { Frame, Opener, Owner } from "./wire.js";

const CLASSES: Record<number, string | undefined> = { 4000: "now", 4001: "later", 4002: "never" };

/** A WebSocket. The hello is its first frame; channels change in flight. */
export const openWebSocket: Opener = (wire, first) => {
  const socket = new wire.env.WebSocket!(wire.base.replace(/^http/, "ws") + "/ws");
  let owner: Owner | undefined = first;

  socket.onopen = () => owner && socket.send(owner.hello());
  socket.onmessage = ({ data }: { data: unknown }) => {
    let frame: Frame;
    try {
      frame = JSON.parse(data as string) as Frame;
    } catch {
      return owner?.end(broken("a frame that is not JSON"), false);
    }
    owner?.frame(frame);
  };
  // P4.5: the reason is a code, with 4001 followed by the delay.
  socket.onclose = ({ code, reason }: { code: number; reason: string }) => {
    const [word, after] = reason.split(" ");
    const kind = CLASSES[code];
    if (kind) owner?.end(fromWire({ code: word, class: kind, after: Number(after) }), true);
    else owner?.end(broken(`the connection closed (${code})`), false);
  };
  socket.onerror = () => {}; // a close follows

  return {
    close() {
      owner = undefined;
      socket.close();
    },
    send: (frame) => socket.send(JSON.stringify(frame)),
    adopt(next) {
      owner = next;
      socket.send(next.hello());
    },
  };
};
