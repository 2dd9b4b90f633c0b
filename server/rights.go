package server

import (
	"context"
	"errors"
	"strings"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// DefaultAuthorize is what [Options.Authorize] is if nothing is set: it allows
// to subscribe to channels whose names hold no "$", and nothing else. So a "$"
// marks a channel that isn't for everybody before the program says for whom it
// is. It is there for programs that want to allow some more.
func DefaultAuthorize(_ context.Context, _ Identity, what Action, ch Channel) error {
	switch {
	case what != Subscribe:
		return transport.Refuse(transport.CodeForbidden,
			"not allowed to %s: the program that runs this server has to allow it, by Options.Authorize or a Rule", verbs[what])
	case strings.Contains(ch.Name, "$"):
		return transport.Refuse(transport.CodeForbidden,
			"not allowed to subscribe to a name that holds $: the program that runs this server has to allow it, by Options.Authorize or a Rule")
	}
	return nil
}

// verbs are the actions in words.
var verbs = map[Action]string{
	Subscribe: "subscribe", History: "read history", Publish: "publish", Call: "call", Presence: "see who is present",
}

// authorize is core.Options.Authorize: it asks the program, and refuses in
// words that name the option.
func (s *Server) authorize(ctx context.Context, who transport.Peer, what Action, ch eventlog.Channel) error {
	if len(ch.Name) > s.o.MaxName {
		return transport.Refuse(transport.CodeBadChannel, "the name is longer than %d bytes (Options.MaxName)", s.o.MaxName)
	}
	if s.ruleOf(ch).allows(what) {
		return nil
	}
	id := identityOf(who)
	err := s.o.Authorize(ctx, id, what, ch)
	var r *transport.Refusal
	if err == nil || errors.As(err, &r) || ctx.Err() != nil {
		return err // a question that was broken off is no answer
	}
	return transport.Refuse(transport.CodeForbidden, "not allowed to %s: Options.Authorize of this server refuses it", verbs[what]).Because(err)
}

func identityOf(who transport.Peer) Identity {
	return Identity{Namespace: who.Namespace, Subject: who.Subject, Claims: who.Claims, Expires: who.Expires}
}
