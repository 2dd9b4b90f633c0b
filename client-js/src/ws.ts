import { asError, broken, fromWire } from "./error.js";
import type { Frame, Opener, Owner } from "./wire.js";

const CLASSES = ["now", "later", "never"]; // of the codes from 4000

/** A WebSocket. The hello is its first frame; channels change in flight. */
export const openWebSocket: Opener = (wire, first) => {
  const socket = new wire.env.WebSocket!(wire.base.replace(/^http/, "ws") + "/ws");
  let owner: Owner | undefined = first;

  socket.onopen = () => owner && socket.send(owner.hello());
  socket.onmessage = ({ data }: { data: unknown }) => {
    try {
      owner?.frame(JSON.parse(data as string) as Frame);
    } catch (cause) {
      owner?.end(asError(cause)); // not JSON
    }
  };
  // P4.5: the reason is a code, with 4001 followed by the delay.
  socket.onclose = ({ code, reason }: { code: number; reason: string }) => {
    const [word, after] = reason.split(" ");
    const kind = CLASSES[code - 4000];
    owner?.end(kind ? fromWire({ code: word, class: kind, after: Number(after) }) : broken(`closed (${code})`));
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
