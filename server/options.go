package server

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// What programs name most, so that one import is enough.
type (
	// Message is what one publishes.
	Message = eventlog.Message
	// Channel names a sequence of events.
	Channel = eventlog.Channel
	// Position names a place in a channel.
	Position = eventlog.Position
	// Identity is who makes a request.
	Identity = session.Identity
	// Action is what a client needs a right for.
	Action = core.Action
	// Client is who speaks, as hooks see it.
	Client = core.Client
	// Welcome is what OnConnect gives to a client.
	Welcome = core.Welcome
	// Publication is what a client publishes, as OnPublish sees it.
	Publication = core.Publication
	// Request is a call of a client's, as OnCall sees it.
	Request = core.Request
	// Payload is data of one kind: a call's, or its answer's.
	Payload = transport.Payload
	// Target says whose connections are meant.
	Target = core.Target
	// Member is a session that is present in a channel.
	Member = session.Member
	// Key signs tokens.
	Key = session.Key
	// Limit bounds a page that is read.
	Limit = eventlog.Limit
	// Page is what one read returns.
	Page = eventlog.Page
)

// A Transport answers requests of clients whose origin and identity are known,
// and attaches them to the engine it was made with.
type Transport interface {
	Serve(w http.ResponseWriter, r *http.Request, peer transport.Peer)
}

// The kinds of a message's data.
const (
	JSON   = eventlog.JSON
	Text   = eventlog.Text
	Binary = eventlog.Binary
)

// The actions.
const (
	Subscribe = core.Subscribe // to hear what comes from now on, and to resume
	History   = core.History   // to begin with events from before
	Publish   = core.Publish   // to append
	Call      = core.Call      // to be answered by OnCall; the channel's name is that of the call
	Presence  = core.Presence  // to see who is in a channel
)

// Options of a server. The zero value works.
type Options struct {
	// Log holds the events. Default: an [eventlog.Memory] with its defaults,
	// which Close closes; a Log that is given stays the caller's.
	Log eventlog.Log

	// Authenticate says who makes a request, by whatever login the program
	// has. An error is answered 401; its text is logged, not shown. Default:
	// nobody is known. It may block; the request's context bounds it.
	Authenticate func(*http.Request) (Identity, error)

	// Authorize says whether a client may do something with a channel: nil
	// allows, an error refuses (its text is not shown to the client). Default:
	// [DefaultAuthorize]. Danger: a function of your own replaces it entirely,
	// so what that doesn't refuse is allowed, publishing and names with "$",
	// too.
	//
	// It is asked when a channel is subscribed, when history is asked for (a
	// position is no history: only who was there has it), when presence is, and
	// at each publish and call. It is not asked again while a connection lasts,
	// unless [Server.Reauthorize] says so. It may block within ctx and is called
	// by many goroutines. It is not asked for what Namespaces allow.
	Authorize func(ctx context.Context, who Identity, what Action, ch Channel) error

	// Namespaces say, by name, what holds for the channels of a namespace. A
	// namespace that is not named has no rules. "" is the one of clients whose
	// Identity names none.
	Namespaces map[string]Namespace

	// Store holds what several servers must share about clients: who is present,
	// and the secret that signs tokens. Default: a [session.Memory] with its
	// defaults, which Close closes; a Store that is given stays the caller's.
	Store session.Store

	// Keys sign the tokens by which clients continue their sessions: the first
	// signs, all verify. Default: one key, of the Store's secret.
	Keys []Key
	// TokenLifetime is how long a token is good for; it is renewed when half of
	// it is over. Default 24 h.
	TokenLifetime time.Duration

	// OnConnect is called for each connection of a session, before it begins: a
	// change of carrier is one, too. An error refuses it. It is not called for
	// plain use.
	OnConnect func(ctx context.Context, who Client) (Welcome, error)
	// OnSubscribe is called for each channel that a client begins to read, once
	// it is allowed; each connection begins its channels anew. An error refuses
	// the channel.
	OnSubscribe func(ctx context.Context, who Client, ch Channel) error
	// OnPublish is called for what a client publishes, once it is allowed, and
	// may change the messages: this is where a server says who the author is. An
	// error refuses them. It may be called again for a repeat, whose changes
	// then are for nothing if the first copy was appended. [Server.Publish]
	// does not call it.
	OnPublish func(ctx context.Context, p *Publication) error
	// OnCall answers calls. An error is told as failed, without its text, but a
	// *transport.Refusal as it is.
	OnCall func(ctx context.Context, r Request) (Payload, error)
	// OnDisconnect is called once for a session that lived 2 s or longer, after
	// its goodbye or PresenceGrace after its last connection ended, on one of
	// the servers that share a Store. It is lost with its process.
	//
	// All of these are called without a lock held and by many goroutines, and
	// may block within their contexts; a panic harms the one client that met it.
	OnDisconnect func(ctx context.Context, who Client)

	// AllowedOrigins are origins, like "https://app.example.com", whose pages
	// may use this server beside those of its own. Default: none. Danger: a
	// page of such an origin acts with its user's cookies.
	AllowedOrigins []string

	// PublishTimeout is how long a publish may take, or a batch of them:
	// Authorize, OnPublish and the log. Default 10 s. Keep it well below how
	// long the log remembers producers.
	PublishTimeout time.Duration
	// CallTimeout is how long a call may take before it is answered unknown.
	// Default 30 s.
	CallTimeout time.Duration
	// MaxCalls is how many calls of one client are in work at a time. Default 16.
	MaxCalls int
	// DisconnectTimeout is how long OnDisconnect may take. Default 10 s.
	DisconnectTimeout time.Duration
	// StoreTimeout bounds one question to the Store. Default 5 s.
	StoreTimeout time.Duration
	// PresenceGrace is how long a session stays present after its last
	// connection ended. Default 15 s.
	PresenceGrace time.Duration
	// PresenceInterval is how often leases are renewed, and how often the Store
	// is asked who is present. Default 5 s; at most a third of PresenceGrace.
	PresenceInterval time.Duration
	// MaxPresent is above how many members a channel's presence is only
	// a number. Default 200.
	MaxPresent int

	// Heartbeat is how long a stream may be silent. Default 25 s; keep it
	// below what proxies on the way cut at.
	Heartbeat time.Duration
	// WriteTimeout is how long a client may take to accept a page of events
	// before it is evicted. Default 10 s.
	WriteTimeout time.Duration
	// GoodbyeTimeout is how long the last word to a client may take, and what is
	// written outside its events. Default 1 s.
	GoodbyeTimeout time.Duration
	// CloseTimeout is how long a WebSocket may take to answer a close frame.
	// Default 1 s.
	CloseTimeout time.Duration
	// AttachTimeout is how long Authenticate, Authorize and the log may take to
	// let a client in, or to take what it publishes. Default 10 s.
	AttachTimeout time.Duration
	// ReadTimeout bounds one question to the log. Default 5 s.
	ReadTimeout time.Duration
	// RetryDelay is how soon to ask a log again that was unavailable, and,
	// somewhat longer, when clients that met that may return. Default 1 s.
	RetryDelay time.Duration
	// HelloTimeout is how long a client may take to say what it wants: the
	// first frame of a WebSocket, the body of a request. Default 10 s.
	HelloTimeout time.Duration
	// MaxWait cuts how long a poll may ask to wait. Default 55 s.
	MaxWait time.Duration
	// Retry is how soon an EventSource comes back after its stream ended.
	// Default 1 s.
	Retry time.Duration
	// MaxLag is by how many events a client that had caught up may fall behind
	// for LagWindow without coming closer, before it is evicted. Default 1000.
	MaxLag int
	// LagWindow: see MaxLag. Default 10 s.
	LagWindow time.Duration
	// EvictionDelay is when an evicted client may come back. Default 5 s.
	EvictionDelay time.Duration
	// PageBytes bounds what is written to a client at once, and so what a slow
	// one costs. Default 64 KiB.
	PageBytes int
	// MaxChannels is how many channels one connection may have. Default 128.
	MaxChannels int
	// MaxFrame is the most bytes of a frame from a client. Default 64 KiB.
	MaxFrame int64

	// Transports are further ones, by the last element of their path: a client
	// finds "ndjson" at {base}/ndjson. The server checks origins and identities
	// for them as for its own. They should pass conformance.TestTransport.
	Transports map[string]func(transport.Engine) Transport

	// Logger gets what is worth reading. Default: slog.Default().
	Logger *slog.Logger
}
