// Package sse carries events as Server-Sent Events (WHATWG HTML §9.2): plain
// ones for any EventSource, and frames of the session protocol.
//
// It works in the handler of any http.ResponseWriter that can flush, over
// HTTP/1.0, 1.1 and 2.
package sse
