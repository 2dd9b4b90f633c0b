package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"

	"github.com/centrifugal/centrifuge"
	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/redistest"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/store/redis"
)

const (
	redisOurs   = "throughline"
	redisTheirs = "centrifuge"
)

// A redisPublish publishes one message and returns when Redis has it. publisher
// and seq are who does, and its how-many-th that is.
type redisPublish func(ctx context.Context, channel, publisher, seq int, data []byte) error

// A redisContestant is one way to have events in Redis.
type redisContestant struct {
	name, about string

	// publisher is a log or a broker, without anybody who reads.
	publisher func(context.Context, *redistest.Server, redisSettings) (publish redisPublish, end func(), err error)

	// node is a server with clients, or nil. Two are started.
	node func(context.Context, *redistest.Server, redisSettings) (*redisNode, error)

	path, hello func(channel string) string // of a client
	ready       string
}

// A redisNode is a server.
type redisNode struct {
	handler http.Handler
	publish func(channel string, data []byte) error
	end     func()
}

// Nobody reads the channels that are published to as fast as it goes.
func unreadChannel(i int) string { return "unread-" + strconv.Itoa(i) }
func readChannel(i int) string   { return "read-" + strconv.Itoa(i) }

func redisContestants() []redisContestant {
	return []redisContestant{
		{
			name:      redisOurs,
			about:     "`store/redis`: `Log.Append` of one message; deliveries: two `server.New(server.Options{Log: …})` with a log each, plain WebSocket. Options are the defaults, but for `Retain`",
			publisher: ourPublisher(false),
			node:      ourNode,
			path:      func(channel string) string { return "/realtime/ws?channel=" + channel },
			hello:     func(string) string { return "" },
			ready:     `"position"`,
		},
		{
			name:      redisOurs + ", producer",
			about:     "the same, each publisher a `Producer` with its number: what is sent again is known for a duplicate",
			publisher: ourPublisher(true),
		},
		{
			name:      redisTheirs,
			about:     "`RedisBroker.Publish` with `HistorySize` and `HistoryTTL` (streams); deliveries: two nodes with one broker each, JSON, recovery and positions on, its own WebSocket handler. Else its defaults, but for no pings",
			publisher: theirPublisher(false),
			node:      theirNode,
			path:      func(string) string { return "/connection/websocket" },
			hello: func(channel string) string {
				return `{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"` + channel + `"}}`
			},
			ready: `"subscribe"`,
		},
		{
			name:      redisTheirs + ", idempotent",
			about:     "the same, each publish with an `IdempotencyKey`, which Redis remembers for 5 minutes: the nearest to our producers",
			publisher: theirPublisher(true),
		},
	}
}

func ourLog(ctx context.Context, s *redistest.Server, o redisSettings) (*redis.Log, func(), error) {
	client := goredis.NewClient(&goredis.Options{Addr: s.Addr()})
	keep := eventlog.Retention{Events: o.Keep, Age: redisKeepFor}
	events, err := redis.Open(ctx, client, redis.Options{Retain: func(eventlog.Channel) eventlog.Retention { return keep }, Logger: redisWarnings()})
	if err != nil {
		_ = client.Close()
		return nil, nil, err
	}
	return events, func() { _ = events.Close(); _ = client.Close() }, nil
}

func redisWarnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func ourPublisher(produce bool) func(context.Context, *redistest.Server, redisSettings) (redisPublish, func(), error) {
	return func(ctx context.Context, s *redistest.Server, o redisSettings) (redisPublish, func(), error) {
		events, end, err := ourLog(ctx, s, o)
		if err != nil {
			return nil, nil, err
		}
		publish := func(ctx context.Context, channel, publisher, seq int, data []byte) error {
			b := eventlog.Batch{Messages: []eventlog.Message{{Data: data}}}
			if produce {
				b.Producer = eventlog.Producer{Owner: "bench", ID: "producer-" + strconv.Itoa(publisher), Seq: uint64(seq)}
			}
			_, duplicate, err := events.Append(ctx, eventlog.Channel{Name: unreadChannel(channel)}, b)
			if err == nil && duplicate {
				err = fmt.Errorf("%d of %d was taken for a duplicate", seq, publisher)
			}
			return err
		}
		return publish, end, nil
	}
}

func ourNode(ctx context.Context, s *redistest.Server, o redisSettings) (*redisNode, error) {
	events, end, err := ourLog(ctx, s, o)
	if err != nil {
		return nil, err
	}
	srv, err := server.New(server.Options{Log: events, Logger: redisWarnings()})
	if err != nil {
		end()
		return nil, err
	}
	return &redisNode{
		handler: srv,
		publish: func(channel string, data []byte) error {
			_, err := srv.Publish(ctx, channel, server.Message{Data: data})
			return err
		},
		end: func() { srv.Close(); end() },
	}, nil
}

// theirBroker gives a node a broker in Redis.
func theirBroker(s *redistest.Server, broker **centrifuge.RedisBroker) func(*centrifuge.Node) error {
	return func(node *centrifuge.Node) error {
		shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: s.Addr()})
		if err != nil {
			return err
		}
		*broker, err = centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
		if err != nil {
			return err
		}
		node.SetBroker(*broker)
		return nil
	}
}

func theirPublisher(idempotent bool) func(context.Context, *redistest.Server, redisSettings) (redisPublish, func(), error) {
	return func(ctx context.Context, s *redistest.Server, o redisSettings) (redisPublish, func(), error) {
		var broker *centrifuge.RedisBroker
		node, err := runCentrifuge(centrifugeSetUp{broker: theirBroker(s, &broker)})
		if err != nil {
			return nil, nil, err
		}
		publish := func(_ context.Context, channel, publisher, seq int, data []byte) error {
			options := centrifuge.PublishOptions{HistorySize: o.Keep, HistoryTTL: redisKeepFor}
			if idempotent {
				options.IdempotencyKey = strconv.Itoa(publisher) + "-" + strconv.Itoa(seq)
			}
			_, err := broker.Publish(unreadChannel(channel), data, options)
			return err
		}
		return publish, func() { stopCentrifuge(ctx, node) }, nil
	}
}

func theirNode(ctx context.Context, s *redistest.Server, o redisSettings) (*redisNode, error) {
	var broker *centrifuge.RedisBroker
	node, err := runCentrifuge(centrifugeSetUp{
		broker:    theirBroker(s, &broker),
		subscribe: centrifuge.SubscribeOptions{EnableRecovery: true, EnablePositioning: true},
	})
	if err != nil {
		return nil, err
	}
	return &redisNode{
		handler: centrifugeHandler(node),
		publish: func(channel string, data []byte) error {
			_, err := node.Publish(channel, data, centrifuge.WithHistory(o.Keep, redisKeepFor))
			return err
		},
		end: func() { stopCentrifuge(ctx, node) },
	}, nil
}
