package server

import (
	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/longpoll"
	"github.com/throughline/throughline/sse"
	"github.com/throughline/throughline/transport"
	"github.com/throughline/throughline/ws"
)

// The labels of metrics come from closed sets, so that no client, token or
// program can make series without bound. What is not in its set is called other.

const other = "other"

type set map[string]bool

func setOf[T ~string](names ...T) set {
	s := make(set, len(names))
	for _, name := range names {
		s[string(name)] = true
	}
	return s
}

// closed returns a name if it is in the set.
func closed(s set, name string) string {
	if s[name] {
		return name
	}
	return other
}

// codes are those of PROTOCOL P8.3, and those that only logs and metrics show.
var codes = setOf(
	transport.CodeBadRequest, transport.CodeBadVersion, transport.CodeBadPosition, transport.CodeBadChannel, transport.CodeTooManyChannels,
	transport.CodeTooLarge, transport.CodeBadEncoding, transport.CodeInvalid, transport.CodeUnauthorized, transport.CodeExpired, transport.CodeForbidden,
	transport.CodeForeignOrigin, transport.CodeNotFound, transport.CodeStale, transport.CodeBusy, transport.CodeBrokenCarrier, transport.CodeUnavailable,
	transport.CodeSlowConsumer, transport.CodeShutdown, transport.CodeUnsubscribed, transport.CodeProbeOver, transport.CodeSuperseded,
	transport.CodeDisconnected, transport.CodeRemoved, transport.CodePaused, transport.CodeUnknown, transport.CodeFailed,
	transport.CodeLeft, transport.CodeSpent, transport.CodeBroken, transport.CodeGoodbye, transport.CodeDead, transport.CodeRateLimited,
)

var gapReasons = setOf(eventlog.Trimmed, eventlog.Rewritten, eventlog.Skipped, eventlog.Withheld, eventlog.Unencodable)

// functions are the program's own, by their options.
var functions = setOf("Authenticate", "Authorize", "From", "OnConnect", "OnSubscribe", "OnPublish", "OnCall", "OnDisconnect")

// labels are the sets that depend on the options.
type labels struct {
	namespaces set // those of Options.Namespaces, that of clients without one, and other
	transports set
}

func newLabels(o *Options) *labels {
	l := &labels{namespaces: setOf("", other), transports: setOf(sse.Name, ws.Name, longpoll.Name, other)}
	for name := range o.Namespaces {
		l.namespaces[name] = true
	}
	for name := range o.Transports {
		l.transports[name] = true
	}
	return l
}

func (l *labels) namespace(name string) string { return closed(l.namespaces, name) }

func (l *labels) source(of core.Source) core.Source {
	return core.Source{Namespace: closed(l.namespaces, of.Namespace), Transport: closed(l.transports, of.Transport)}
}
