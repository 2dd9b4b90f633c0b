package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/transport"
)

// identify finds out who makes a request, or, if it is a hello of the session
// protocol, how that is found out when the hello has come: who was let in long
// before could not be reached by Disconnect meanwhile. The error is
// a *transport.Refusal.
func (s *Server) identify(r *http.Request, peer transport.Peer) (transport.Peer, error) {
	if s.o.Authenticate == nil {
		return peer, nil
	}
	if !saysHello(r) {
		err := s.door.handshake(func() (err error) {
			peer, err = s.authenticate(r.Context(), r, peer)
			return err
		})
		return peer, err
	}
	stranger := peer
	peer.Identify = func(ctx context.Context, credentials string) (transport.Peer, error) {
		with := r.Clone(ctx)
		if credentials != "" {
			// What a page can't put in a header of a WebSocket's handshake is looked at
			// as if it were there, so that one function does for all.
			with.Header.Set("Authorization", "Bearer "+credentials)
		}
		return s.authenticate(ctx, with, stranger)
	}
	return peer, nil
}

// saysHello reports whether a hello follows: the body of a POST to a carrier, or
// a frame of a WebSocket.
func saysHello(r *http.Request) bool {
	switch last(r.URL.Path) {
	case "up", "publish":
		return false
	}
	return r.Method == http.MethodPost || r.Header.Get("Upgrade") != "" && !r.URL.Query().Has("channel")
}

// authenticate asks Options.Authenticate. The error is a *transport.Refusal.
func (s *Server) authenticate(ctx context.Context, r *http.Request, peer transport.Peer) (transport.Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.AttachTimeout)
	defer cancel()
	id, err := s.askAuthenticate(r.WithContext(ctx), &peer)
	if err != nil {
		if refused, ok := errors.AsType[*transport.Refusal](err); ok && core.FitCode(refused.Code) {
			return peer, refused
		}
		return peer, transport.Refuse(transport.CodeUnauthorized, "Options.Authenticate of this server does not know you").Because(err)
	}
	if err := id.Check(); err != nil {
		s.engine.Tell(slog.LevelError, clientOf(&peer), "bad identity given", slog.Any("error", err))
		return peer, transport.Refuse(transport.CodeUnauthorized, "Options.Authenticate of this server gave you a name that can't be")
	}
	if !id.Expires.IsZero() && !time.Now().Before(id.Expires) {
		return peer, &transport.Refusal{Reason: transport.Reason{Code: transport.CodeExpired, Class: transport.Now, Message: "the credentials have expired: come back with fresh ones"}}
	}
	peer.Namespace, peer.Subject, peer.Claims, peer.Expires = id.Namespace, id.Subject, id.Claims, id.Expires
	return peer, nil
}

// askAuthenticate calls Options.Authenticate. If that panics nobody can be known
// now.
func (s *Server) askAuthenticate(r *http.Request, peer *transport.Peer) (id Identity, err error) {
	began := time.Now()
	defer func() {
		p := recover()
		s.metrics.Hooked("Authenticate", time.Since(began), p != nil)
		if p != nil {
			s.engine.Tell(slog.LevelError, clientOf(peer), "function panicked", slog.String("function", "Authenticate"),
				slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
			err = transport.RefuseFor(time.Second, transport.CodeUnavailable, "Options.Authenticate of this server failed")
		}
	}()
	id, err = s.o.Authenticate(r)
	if refused, ok := errors.AsType[*transport.Refusal](err); ok && refused == nil {
		err = nil
	}
	return id, err
}
