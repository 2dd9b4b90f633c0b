package core

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/transport"
)

// credentials are what shows who a line is of, while it lasts: they end, and a
// client that was asked in time brings fresh ones (PROTOCOL P6.21, P6.22).
type credentials struct {
	checking atomic.Bool // fresh ones came and are being looked at

	mu    sync.Mutex
	peer  transport.Peer // guarded by mu
	timer *time.Timer    // guarded by mu: runs while they will end
	asked bool           // guarded by mu: the client was asked for fresh ones
	over  bool           // guarded by mu
}

// identify finds out who it is: as the request showed, or by the credentials
// that came in a frame. The error is a *transport.Refusal.
func (e *Engine) identify(ctx context.Context, peer transport.Peer, text string) (transport.Peer, error) {
	switch {
	case text != "" && peer.Identify == nil:
		return peer, transport.Refuse(transport.CodeUnauthorized, "credentials are not looked at here: the server has no Options.Authenticate")
	case peer.Identify != nil:
		var found transport.Peer
		err := e.guard("Identify", clientOf(peer, ""), func() (err error) {
			found, err = peer.Identify(ctx, text)
			return err
		})
		if err != nil {
			return peer, e.refusal(err)
		}
		peer.Namespace, peer.Subject, peer.Claims, peer.Expires = found.Namespace, found.Subject, found.Claims, found.Expires
	}
	if !peer.Expires.IsZero() && !time.Now().Before(peer.Expires) {
		return peer, expired()
	}
	return peer, nil
}

func expired() *transport.Refusal {
	return &transport.Refusal{Reason: transport.Reason{
		Code: transport.CodeExpired, Class: transport.Now, Message: "the credentials have expired: come back with fresh ones",
	}}
}

// who is the peer of the line by its last credentials.
func (l *line) who() transport.Peer {
	l.credentials.mu.Lock()
	defer l.credentials.mu.Unlock()
	return l.credentials.peer
}

// speaker is who the hooks are told of.
func (l *line) speaker() Client { return clientOf(l.who(), l.client.Session) }

// present takes fresh credentials. They may take a while to look at, which
// holds up nothing else of the line.
func (l *line) present(text string) *transport.Refusal {
	if l.credentials.checking.Swap(true) {
		return transport.Refuse(transport.CodeBadRequest, "credentials came before the last ones were looked at")
	}
	if err := l.engine.o.Admit(l.who(), EffortResume, 1); err != nil {
		return l.engine.refusal(err)
	}
	l.engine.spawn(func() {
		defer l.credentials.checking.Store(false)
		ctx, cancel := l.question()
		defer cancel()
		peer, err := l.engine.identify(ctx, l.peer, text)
		switch {
		case err != nil:
			l.sayGoodbye(l.engine.refusal(err).Reason)
		case peer.Namespace != l.peer.Namespace || peer.Subject != l.peer.Subject:
			l.sayGoodbye(expired().Reason) // somebody else: that is another session
		default:
			l.renew(peer)
		}
	})
	return nil
}

// renew goes on by fresh credentials, with the rights they give.
func (l *line) renew(peer transport.Peer) {
	c := &l.credentials
	c.mu.Lock()
	c.peer.Claims, c.peer.Expires, c.asked = peer.Claims, peer.Expires, false
	l.arm()
	c.mu.Unlock()
	l.askRights()
}

// watchExpiry begins when the line does.
func (l *line) watchExpiry() {
	l.credentials.mu.Lock()
	defer l.credentials.mu.Unlock()
	l.arm()
}

// arm sets the timer for what comes next: to ask for fresh credentials, or to
// end the line. The half of what is left is the client's in any case, so that
// one whose credentials are short-lived isn't asked again and again. It is
// called with credentials.mu held.
func (l *line) arm() {
	c := &l.credentials
	if c.over || c.peer.Expires.IsZero() {
		if c.timer != nil {
			c.timer.Stop()
		}
		return
	}
	wait := time.Until(c.peer.Expires)
	if l.inSession() && !c.asked {
		wait -= min(l.engine.o.RefreshLead, wait/2)
	}
	wait = max(wait, time.Millisecond)
	if c.timer == nil {
		c.timer = time.AfterFunc(wait, l.expiryTick)
	} else {
		c.timer.Reset(wait)
	}
}

// expiryTick is called by the timer.
func (l *line) expiryTick() {
	c := &l.credentials
	c.mu.Lock()
	if c.over || c.peer.Expires.IsZero() {
		c.mu.Unlock()
		return
	}
	left := time.Until(c.peer.Expires)
	ask := left > 0 && l.inSession() && !c.asked
	c.asked = c.asked || ask
	if left > 0 {
		l.arm()
	}
	c.mu.Unlock()
	switch {
	case left <= 0:
		l.sayGoodbye(expired().Reason)
	case ask:
		l.push(command{frame: &transport.Frame{Kind: transport.FrameRefresh, Left: left}})
	}
}

// stopExpiry ends the watch.
func (l *line) stopExpiry() {
	c := &l.credentials
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	l.arm()
}
