/** All of it as one script: `Throughline.connect`, `.bearer`, `.call`, `.presence`, `.ThroughlineError`. */
export { bearer } from "./auth.js";
export { call } from "./call.js";
export { connect } from "./client.js";
export { ThroughlineError } from "./error.js";
export { presence } from "./presence.js";
