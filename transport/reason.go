package transport

import (
	"fmt"
	"time"
)

// A Class tells a client what to do after an end (PROTOCOL P8.2).
type Class uint8

const (
	Now   Class = iota // come back at once
	Later              // come back after Reason.After
	Never              // not as you are: something has to change first
)

// String returns the class as the wire has it.
func (c Class) String() string {
	switch c {
	case Now:
		return "now"
	case Later:
		return "later"
	default:
		return "never"
	}
}

// Codes of reasons (PROTOCOL P8.3).
const (
	CodeBadRequest      = "bad_request"
	CodeBadVersion      = "bad_version"
	CodeBadPosition     = "bad_position"
	CodeBadChannel      = "bad_channel"
	CodeTooManyChannels = "too_many_channels"
	CodeTooLarge        = "too_large"
	CodeInvalid         = "invalid"
	CodeUnauthorized    = "unauthorized"
	CodeForbidden       = "forbidden"
	CodeForeignOrigin   = "foreign_origin"
	CodeNotFound        = "not_found"
	CodeStale           = "stale"
	CodeBusy            = "busy"
	CodeUnavailable     = "unavailable"
	CodeSlowConsumer    = "slow_consumer"
	CodeShutdown        = "shutdown"
	CodeUnsubscribed    = "unsubscribed"
	CodeProbeOver       = "probe_over"
	CodeSuperseded      = "superseded"
	CodeDisconnected    = "disconnected"
	CodeRemoved         = "removed"
	CodePaused          = "paused"
	CodeUnknown         = "unknown"
	CodeFailed          = "failed"

	// Codes that only logs and metrics show: the client is not there to see.
	CodeLeft    = "left"    // the client went away
	CodeSpent   = "spent"   // a poll was answered
	CodeBroken  = "broken"  // a write failed
	CodeGoodbye = "goodbye" // the client said that it will not come back
)

// A Reason says why something ended or was refused, to programs by its code
// and to people by its message.
type Reason struct {
	Code    string
	Class   Class
	After   time.Duration // with class Later
	Message string
}

func (r Reason) String() string {
	switch {
	case r.Class == Later:
		return fmt.Sprintf("%s: %s (come back after %v)", r.Code, r.Message, r.After)
	case r.Message == "":
		return r.Code
	}
	return r.Code + ": " + r.Message
}

// A Refusal is the error for what is not done.
type Refusal struct{ Reason }

func (r *Refusal) Error() string { return r.String() }

// Refuse returns a refusal of class Never, its message in the manner of
// fmt.Sprintf.
func Refuse(code, format string, args ...any) *Refusal {
	return &Refusal{Reason{Code: code, Class: Never, Message: fmt.Sprintf(format, args...)}}
}

// RefuseFor returns a refusal of class Later.
func RefuseFor(after time.Duration, code, format string, args ...any) *Refusal {
	return &Refusal{Reason{Code: code, Class: Later, After: after, Message: fmt.Sprintf(format, args...)}}
}
