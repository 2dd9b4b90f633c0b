package core

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/transport"
)

// What the breaker of a client's delivery (package breaker) is told, and what
// comes of it.

// Evicted is how many clients are known to have been too slow.
func (e *Engine) Evicted() breaker.Known { return e.clients.Known() }

// letIn asks the breaker whether a client may be delivered to. The error is
// a *transport.Refusal. Nothing is asked of the log, or of anything else. Probes
// are let in.
func (e *Engine) letIn(peer *transport.Peer, hello *transport.Hello, session string) (*breaker.Line, error) {
	if hello.Probe {
		return nil, nil //nolint:nilnil // a nil line does nothing
	}
	who := breaker.Client{Session: session, Identity: identityOf(peer), Named: peer.Subject != "", Connection: peer.Connection, Transport: peer.Transport}
	if hello.Version == 0 {
		who.Identity, who.Place = plainIdentity(peer, hello)
	}
	l, err := e.clients.Enter(who)
	d, denied := errors.AsType[*breaker.Denial](err)
	if !denied {
		return l, nil
	}
	after := (d.After + time.Millisecond - 1).Truncate(time.Millisecond) // the wire has whole ones, and who comes then is not to be early
	if d.Broken == nil {
		return nil, transport.RefuseFor(after, transport.CodeSlowConsumer, "this client did not keep up: it may come back when the delay is over, and misses nothing that is still kept")
	}
	r := transport.RefuseFor(after, transport.CodeBrokenCarrier, "connections of this client over %s broke again and again: it may use others", peer.Transport)
	r.Instead = e.instead(d.Broken)
	return nil, r
}

// instead names the transports that are open to a client, joined by commas.
func (e *Engine) instead(broken []string) string {
	var open []string
	for _, name := range e.o.Transports {
		if !slices.Contains(broken, name) {
			open = append(open, name)
		}
	}
	return strings.Join(open, ",")
}

// identityOf is what a client shares with others of its kind: its subject, or
// else the address it comes from.
func identityOf(peer *transport.Peer) string {
	if peer.Subject != "" {
		return peer.Namespace + "\x00subject\x00" + peer.Subject
	}
	return peer.Namespace + "\x00address\x00" + network(peer.Addr)
}

// network is the part of an address that its owner can't change at will: an IPv6
// host has 2^64 of them (RFC 4291 §2.5.1).
func network(addr string) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil || ip.Unmap().Is4() {
		return addr
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return addr
	}
	return prefix.String()
}

// plainIdentity is by what a plain client is known: its subject, or else its
// address and the channel that it reads first, and where it goes on there.
func plainIdentity(peer *transport.Peer, hello *transport.Hello) (identity string, place breaker.Place) {
	identity = identityOf(peer)
	if peer.Subject == "" && len(hello.Channels) > 0 {
		identity += "\x00" + hello.Channels[0].Channel
	}
	for _, s := range hello.Channels {
		if !s.After.IsZero() {
			return identity, breaker.Place{Channel: s.Channel, From: s.After.Offset, To: s.After.Offset}
		}
	}
	return identity, breaker.Place{}
}

// place is where a plain line will go on. What was handed to the network may have
// arrived or not.
func (l *line) place() breaker.Place {
	if l.version > 0 || l.lead == nil {
		return breaker.Place{}
	}
	return breaker.Place{Channel: l.lead.name, From: l.lead.from, To: l.lead.takenTo.Load()}
}

// tooSlow opens the breaker of the line's client, and returns what it is told.
func (l *line) tooSlow(why Slowness) transport.Reason {
	l.engine.o.Observer.Evicted(l.source, why)
	message := saysSlow[why]
	l.engine.evictions.Add(1)
	out := l.engine.o.EvictionDelay
	if l.delivery != nil {
		trip := l.delivery.TooSlow(l.place(), message)
		out = trip.For
		l.engine.herald.tell(trip)
	}
	l.engine.Tell(slog.LevelInfo, &l.client, "evicted", slog.String("message", message), slog.Duration("for", out))
	return transport.RefuseFor(out, transport.CodeSlowConsumer, "%s", message).Reason
}

// judge looks, after a Send, at whether the client keeps up. It reports false
// when it does not.
func (l *line) judge(now time.Time) bool {
	atHead := true
	for _, s := range l.subs {
		s.sentTo.Store(s.cursor.Offset)
		d, limits := s.distance(now), &s.topic.policy.limits
		tooSlow := s.pace.TooSlow(d, *limits, now)
		s.noteOver()
		if tooSlow {
			return false
		}
		atHead = atHead && s.cursor.Offset >= s.caughtUpAt && limits.Within(d)
	}
	if l.onTrial && atHead {
		l.onTrial = false
		if l.delivery.KeepsUp() {
			l.engine.Tell(slog.LevelDebug, &l.client, "trial passed")
		}
	}
	return true
}

// noteOver notes, for people who look, since when it is over the policy.
func (s *subscription) noteOver() {
	over := int64(0)
	if since := s.pace.Since(); !since.IsZero() {
		over = max(1, int64(since.Sub(s.line.began)))
	}
	if over != s.overSince.Load() { // mostly it is not over, and others read this
		s.overSince.Store(over)
	}
}

// leave takes the line out of its client's breaker, when it never began.
func (l *line) leave() {
	if l.delivery != nil {
		l.delivery.Leave(false)
	}
}

// hasBroken reports whether a line that ended so counts against its transport:
// it was cut off, or fell silent, after it had shown that it works. A line that
// another has superseded was left by its client.
func (l *line) hasBroken(why transport.Reason) bool {
	return l.inSession() && l.proved && (l.cut || why.Code == transport.CodeDead)
}
