/** A payload as it crosses the wire (P2.2, P9.2). */
export interface Payload {
  data?: unknown;
  encoding?: string;
}

/** JSON, unless it is bytes, or a string that is to be text. JSON is made at once: later changes of the object don't show. */
export async function encode(data: unknown, text?: boolean): Promise<Payload> {
  if (text) return { data: String(data), encoding: "text" };
  if (data instanceof Blob) data = await data.arrayBuffer();
  if (data instanceof ArrayBuffer) data = new Uint8Array(data);
  if (data instanceof Uint8Array) return { data: btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join("")), encoding: "base64" };
  const json = JSON.stringify({ data });
  if (json === "{}") throw new TypeError("not JSON");
  return JSON.parse(json) as Payload;
}

export function decode({ data, encoding }: Payload): unknown {
  return encoding === "base64" ? Uint8Array.from(atob(data as string), (char) => char.charCodeAt(0)) : data;
}

/** 128 random bits or more, as text. */
export const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => (byte + 256).toString(16).slice(1)).join("");
