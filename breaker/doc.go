// Package breaker has the circuit breakers of a server: those of the delivery to
// its clients, and those of what it depends on.
//
// A [Pace] judges whether a reader keeps up, by its distance to the head.
// [Clients] remembers who did not, keeps them out for a while that grows each time, lets
// them try again, and forgets them when they have kept up for long enough. It
// also remembers whose connections broke again and again over one transport.
//
// The states of a breaker are those of github.com/sony/gobreaker, which is
// inside: closed (all is well), open (refused), half-open (one trial). What it
// can't do is ours: delays that grow, a deadline that clients can be told, and
// a memory that is bounded; see docs/adr/010.
package breaker
