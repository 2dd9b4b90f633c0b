// Package session is about who a client is.
package session

// An Identity is who makes a request, as the program's own authentication
// found. The zero value is a client about whom nothing is known.
type Identity struct {
	// Namespace of all the channels that the client speaks of.
	Namespace string
	// Subject is who it is: a user's id, for example. Empty: not known.
	Subject string
	// Claims is whatever else the program wants to see again when it is asked
	// for leave.
	Claims any
}
