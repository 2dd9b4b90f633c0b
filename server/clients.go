package server

import (
	"context"
	"errors"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// What a program does about its clients, on whatever node they are: the orders
// travel in a channel of the log, which all the servers follow that share it.
// They reach those who have a connection then. Their errors are those of
// [eventlog.Log.Append], or say which argument is wrong.

// Subscribe gives a channel to clients, as if they had asked for it: it gives no
// right, so Authorize is asked. It may be lost if a client is between two
// connections; what a client is to have lastingly, OnConnect names.
func (s *Server) Subscribe(ctx context.Context, who Target, channel string) error {
	return s.channelOrder(ctx, core.DoSubscribe, who, channel)
}

// Unsubscribe takes a channel away from clients, who are told. It takes no right
// away: they may subscribe again, unless Authorize refuses.
func (s *Server) Unsubscribe(ctx context.Context, who Target, channel string) error {
	return s.channelOrder(ctx, core.DoUnsubscribe, who, channel)
}

func (s *Server) channelOrder(ctx context.Context, do string, who Target, channel string) error {
	if err := (Channel{Namespace: who.Namespace, Name: channel}).Check(); err != nil {
		return err
	}
	return s.engine.Order(ctx, core.Order{Do: do, Target: who, Channel: channel})
}

// Disconnect ends the connections of clients, plain ones too. The namespace is
// part of who they are: the empty one is that of clients whose Identity names
// none, and not all. No error doesn't mean that anybody was met. They are told why,
// and by the reason's class whether to come back: with Never, its zero value,
// they don't until the page is loaded again or calls connect, and are present
// no more at once; with Now or Later they do. The zero reason is
// "disconnected". A reason like any other is
//
//	transport.Refuse("kicked", "you were asked to leave %s", room).Reason
//
// It takes no right away: who must stay out is refused by Authenticate or
// OnConnect.
func (s *Server) Disconnect(ctx context.Context, who Target, why transport.Reason) error {
	if why == (transport.Reason{}) {
		why = transport.Reason{Code: transport.CodeDisconnected, Class: transport.Never, Message: "this server ended the connection"}
	}
	if !core.FitCode(why.Code) {
		return errors.New("server: the code of the reason has 1 to 50 characters a-z, 0-9 and _")
	}
	return s.engine.Order(ctx, core.Order{Do: core.DoDisconnect, Target: who, Why: why})
}

// Reauthorize has Authorize asked again for the channels that clients have, and
// ends those it refuses now. What OnConnect gave lasts until the next
// connection.
func (s *Server) Reauthorize(ctx context.Context, who Target) error {
	return s.engine.Order(ctx, core.Order{Do: core.DoReauthorize, Target: who})
}

// Present returns who is in a channel: at most MaxPresent members, in order of
// their ids, and how many there are. Errors are those of
// [session.Store.Present].
func (s *Server) Present(ctx context.Context, ch Channel) (members []Member, total int, err error) {
	if err := ch.Check(); err != nil {
		return nil, 0, err
	}
	return s.engine.Present(ctx, ch)
}

// Read returns a page of what comes after a position, as [eventlog.Log.Read]
// does. The zero position stands for the oldest event that is kept.
func (s *Server) Read(ctx context.Context, ch Channel, after Position, limit Limit) (Page, error) {
	if after.IsZero() {
		return s.readFrom(ctx, ch, eventlog.Start{Earliest: true}, limit)
	}
	return s.log.Read(ctx, ch, after, limit)
}

// Last returns the last n events of a channel, or as many as there are: n times
// the log's bound of a message at most, however large the pages of the log are.
// Next is where to go on.
func (s *Server) Last(ctx context.Context, ch Channel, n int) (Page, error) {
	page, err := s.readFrom(ctx, ch, eventlog.Start{Last: n}, Limit{})
	for err == nil && page.More() && len(page.Events) < n {
		var more Page
		more, err = s.log.Read(ctx, ch, page.Next, Limit{})
		more.Events = append(page.Events, more.Events...)
		page = more
	}
	return page, err
}

func (s *Server) readFrom(ctx context.Context, ch Channel, start eventlog.Start, limit Limit) (Page, error) {
	at, err := s.log.Seek(ctx, ch, start)
	if err != nil {
		return Page{}, err
	}
	return s.log.Read(ctx, ch, at, limit)
}
