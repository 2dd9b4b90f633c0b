package session

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/throughline/throughline/eventlog"
)

// MaxSubject is the most bytes of a subject.
const MaxSubject = 256

// MaxID is the most bytes of a session's id.
const MaxID = 64

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
	// Expires is when this ends, as a login or a token does. Zero: it doesn't.
	Expires time.Time
}

// Check reports with an [*eventlog.Invalid] whether i can't be an identity: its
// namespace or its subject is too long, not UTF-8, or holds control characters,
// or its namespace begins with "$", as those of the library itself do.
func (i Identity) Check() error {
	if err := checkNamespace(i.Namespace); err != nil {
		return err
	}
	return checkSubject(i.Subject)
}

func checkNamespace(namespace string) error {
	switch {
	case len(namespace) > eventlog.MaxNamespace:
		return tooLong("namespace", eventlog.MaxNamespace)
	case !plainText(namespace):
		return notPlain("namespace")
	case strings.HasPrefix(namespace, "$"):
		return &eventlog.Invalid{Field: "namespace", Problem: `begins with "$", which is reserved for the library`}
	}
	return nil
}

func checkSubject(subject string) error {
	switch {
	case len(subject) > MaxSubject:
		return tooLong("subject", MaxSubject)
	case !plainText(subject):
		return notPlain("subject")
	}
	return nil
}

func tooLong(field string, most int) error {
	return &eventlog.Invalid{Field: field, Problem: fmt.Sprintf("is longer than %d bytes", most)}
}

func notPlain(field string) error {
	return &eventlog.Invalid{Field: field, Problem: "is not UTF-8 or holds control characters"}
}

// plainText reports whether s is UTF-8 without control characters.
func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// NewID returns an id for a session: 128 random bits, as 22 characters
// [A-Za-z0-9_-].
func NewID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(id[:])
}
