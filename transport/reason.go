package transport

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// A Class tells a client what to do after an end (PROTOCOL P8.2). The zero value
// is Never, so that a reason without one keeps a client out.
type Class uint8

const (
	Never Class = iota // not as you are: something has to change first
	Now                // come back at once
	Later              // come back after Reason.After
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
	CodeBadEncoding     = "bad_encoding"
	CodeInvalid         = "invalid"
	CodeUnauthorized    = "unauthorized"
	CodeExpired         = "expired"
	CodeForbidden       = "forbidden"
	CodeForeignOrigin   = "foreign_origin"
	CodeNotFound        = "not_found"
	CodeStale           = "stale"
	CodeBusy            = "busy"
	CodeRateLimited     = "rate_limited"
	CodeUnavailable     = "unavailable"
	CodeSlowConsumer    = "slow_consumer"
	CodeBrokenCarrier   = "broken_carrier"
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
	CodeDead    = "dead"    // the client no longer answers
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
	// Instead names the transports that are open to the client, joined by
	// commas, with CodeBrokenCarrier.
	Instead string
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

// Attrs are what a line of a log says of a reason. What stands in quotes in its
// message is left out: that is what the client said, which may be a secret.
func (r Reason) Attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("code", r.Code), slog.String("message", withoutQuotes(r.Message))}
	if r.After > 0 {
		attrs = append(attrs, slog.Duration("for", r.After))
	}
	return attrs
}

func withoutQuotes(text string) string {
	var kept strings.Builder
	for {
		before, rest, quoted := strings.Cut(text, `"`)
		kept.WriteString(before)
		if !quoted {
			return kept.String()
		}
		kept.WriteString(`"…"`)
		text = afterQuote(rest)
	}
}

// afterQuote returns what follows the end of a quote that has begun.
func afterQuote(text string) string {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return text[i+1:]
		}
	}
	return ""
}

// A Refusal is the error for what is not done.
type Refusal struct {
	Reason
	// Cause is what is behind it, for logs. No client is told.
	Cause error
}

func (r *Refusal) Error() string { return r.String() }

// Unwrap returns what is behind it.
func (r *Refusal) Unwrap() error { return r.Cause }

// Refuse returns a refusal of class Never, its message in the manner of
// fmt.Sprintf.
func Refuse(code, format string, args ...any) *Refusal {
	return &Refusal{Reason: Reason{Code: code, Class: Never, Message: fmt.Sprintf(format, args...)}}
}

// RefuseFor returns a refusal of class Later.
func RefuseFor(after time.Duration, code, format string, args ...any) *Refusal {
	return &Refusal{Reason: Reason{Code: code, Class: Later, After: after, Message: fmt.Sprintf(format, args...)}}
}

// Because notes what is behind a refusal, for logs, and returns it.
func (r *Refusal) Because(cause error) *Refusal {
	r.Cause = cause
	return r
}
