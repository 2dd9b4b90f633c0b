// Package redistest is the rig of what is tested against Redis: real servers,
// each a process of its own on this machine, links to them that can be cut, and
// a dialer that lets clients of a real server live in bubbles of
// testing/synctest.
//
// Servers and links are of the real world. Start them outside of bubbles, and
// dial them from inside with a [Bubble].
package redistest
