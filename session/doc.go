// Package session is about who a client is: its identity, the signed token by
// which it is known again, and what nodes share about the clients they have.
//
// An [Identity] is what the program's own authentication found out about
// a request. A session is one client object, a page load for example, and has
// an id that the server draws ([NewID]). The client keeps a token, the text
// that [Keys.Sign] makes of a [Token], and presents it when it comes back, to
// whatever node. A token opens nothing by itself: [Keys.Verify] holds it
// against the identity of the one who presents it. One that doesn't verify is
// as if none were given.
//
// A [Store] holds what nodes must share: a secret that signs tokens where no
// keys are given, and a lease for each session, which says in which channels it
// is present. It is never on the path of a read. [Memory] is the store of one
// process.
package session
