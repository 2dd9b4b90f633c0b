// Package ws carries events over WebSockets (RFC 6455): plain ones for any
// client, and frames of the session protocol.
//
// coder/websocket does the handshake, reads, and answers control frames. What
// the engine sends is written past it: frames that are made once for all, by
// one write under one deadline. A gate keeps the two apart, so that control
// frames stand between data frames and nothing follows a close frame.
package ws
