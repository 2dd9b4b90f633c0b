package main

import (
	"context"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"
)

// What the bursts need not to end with clients that were cut off for a full
// queue. The default is 1 MiB.
const centrifugeQueue = 16 << 20

// centrifugeSetUp is where the variants of centrifuge differ.
type centrifugeSetUp struct {
	connect   centrifuge.ConnectReply
	subscribe centrifuge.SubscribeOptions
	publish   []centrifuge.PublishOption
	broker    func(*centrifuge.Node) error // sets it; nil: the one in memory
}

func centrifugeDefault() contestant {
	return centrifugeAs("centrifuge",
		"JSON protocol, memory engine, its own WebSocket handler; defaults but for `ClientQueueMaxSize` 16 MiB (a burst must not look like a slow client) and no pings (Throughline sends none in the first 25 s either). No history: what a client misses is lost",
		centrifugeSetUp{})
}

// centrifugeBatching is what somebody would set who expects bursts, and does
// not mind that each event waits.
func centrifugeBatching() contestant {
	c := centrifugeAs("centrifuge, batching",
		"the same with `WriteDelay` 10 ms, `MaxMessagesInFrame` unlimited: each event waits for others",
		centrifugeSetUp{connect: centrifuge.ConnectReply{WriteDelay: 10 * time.Millisecond, MaxMessagesInFrame: -1}})
	c.extra = true
	return c
}

// centrifugeHistory promises its clients about what Throughline does.
func centrifugeHistory() contestant {
	c := centrifugeAs("centrifuge, history",
		"as `centrifuge`, with history of 10,000 events and recovery: the variant whose promises come closest to Throughline's",
		centrifugeSetUp{
			subscribe: centrifuge.SubscribeOptions{EnableRecovery: true},
			publish:   []centrifuge.PublishOption{centrifuge.WithHistory(10_000, 24*time.Hour)},
		})
	c.extra = true
	return c
}

func centrifugeAs(name, about string, up centrifugeSetUp) contestant {
	return contestant{
		name:  name,
		about: about,
		path:  "/connection/websocket",
		hello: `{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"` + channel + `"}}`,
		ready: `"subscribe"`,
		start: func(ctx context.Context, _ settings) (*contender, error) { return startCentrifuge(ctx, up) },
	}
}

func startCentrifuge(ctx context.Context, up centrifugeSetUp) (*contender, error) {
	node, err := runCentrifuge(up)
	if err != nil {
		return nil, err
	}
	return &contender{
		handler: centrifugeHandler(node),
		publish: func(data []byte) error {
			_, err := node.Publish(channel, data, up.publish...)
			return err
		},
		close: func() { stopCentrifuge(ctx, node) },
	}, nil
}

func runCentrifuge(up centrifugeSetUp) (*centrifuge.Node, error) {
	node, err := centrifuge.New(centrifuge.Config{ClientQueueMaxSize: centrifugeQueue})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		reply := up.connect
		reply.Credentials = &centrifuge.Credentials{}
		return reply, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, done centrifuge.SubscribeCallback) {
			done(centrifuge.SubscribeReply{Options: up.subscribe}, nil)
		})
	})
	if up.broker != nil {
		if err := up.broker(node); err != nil {
			return nil, err
		}
	}
	return node, node.Run()
}

func centrifugeHandler(node *centrifuge.Node) http.Handler {
	return centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		PingPongConfig: centrifuge.PingPongConfig{PingInterval: -1, PongTimeout: -1},
	})
}

func stopCentrifuge(ctx context.Context, node *centrifuge.Node) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = node.Shutdown(ctx) // the process ends after this anyway
}
