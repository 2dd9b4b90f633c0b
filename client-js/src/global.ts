/** All of it as one script: `Throughline.connect`, `.call`, `.presence`, `.ThroughlineError`. */
export { call } from "./call.js";
export { connect } from "./client.js";
export { ThroughlineError } from "./error.js";
export { presence } from "./presence.js";
