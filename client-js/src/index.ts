/**
 * The JavaScript client of Throughline: realtime channels that never lose an event silently.
 *
 *     import { connect } from "/realtime/client.js";
 *     const room = connect("/realtime").channel("room:42");
 *     for await (const event of room) show(event.data);
 */
export { connect } from "./client.js";
export { ThroughlineError } from "./error.js";
export type { ErrorClass } from "./error.js";
export type * from "./types.js";
