// Command bench measures what it costs a server to give each event of one
// channel to a thousand WebSocket clients, beside what it can't cost less than
// (bare write calls) and beside centrifuge. It is a module of its own, so that
// who uses Throughline inherits nothing of it. README.md tells how to read it.
//
// Three kinds of processes take part. The first one orders the trials and
// prints the tables. For each trial it starts one that is the server, fresh, so
// that no contestant finds another one's heap. That one starts the drain,
// which is all the clients: one epoll loop on one processor, the same for every
// contestant, that checks the numbers of all events it is given.
//
// All of it stays on 127.0.0.1, and every wait in it has a deadline.
package main
