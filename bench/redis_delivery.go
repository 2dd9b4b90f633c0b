package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// redisMessages bounds how many messages one run delivers.
const redisMessages = 1 << 20

// redisNodes are two servers with one Redis: one that publishes, and one that
// has the clients, which are goroutines of this process.
type redisNodes struct {
	from, to *redisNode
	server   *http.Server
	channels int
	clients  []*redisClient
	group    sync.WaitGroup

	next int            // the number of the next message
	at   []atomic.Int64 // when each was published
	left atomic.Int64   // deliveries of this slice
}

// A redisClient is a WebSocket that notes how long each message took.
type redisClient struct {
	conn    net.Conn
	channel int

	mu    sync.Mutex
	waits []time.Duration // guarded by mu
}

func startRedisNodes(ctx context.Context, r *redisRival, o redisSettings) (n *redisNodes, err error) {
	n = &redisNodes{channels: o.Channels, at: make([]atomic.Int64, redisMessages)}
	defer func() {
		if err != nil {
			n.end()
		}
	}()
	if n.from, err = r.node(ctx, r.server, o); err != nil {
		return nil, err
	}
	if n.to, err = r.node(ctx, r.server, o); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n.server = &http.Server{Handler: n.to.handler, ReadHeaderTimeout: connectLimit}
	go func() { _ = n.server.Serve(ln) }() // ends with Close
	for i := range o.Clients {
		c := &redisClient{channel: i % o.Channels}
		name := readChannel(c.channel)
		p := plan{Addr: ln.Addr().String(), Path: r.path(name), Hello: r.hello(name), Ready: r.ready}
		if c.conn, err = net.DialTimeout("tcp", p.Addr, connectLimit); err != nil {
			return nil, err
		}
		n.clients = append(n.clients, c)
		if err := c.conn.SetDeadline(time.Now().Add(connectLimit)); err != nil {
			return nil, err
		}
		rest, err := shakeHands(c.conn, p)
		if err != nil {
			return nil, fmt.Errorf("client %d: %w", i, err)
		}
		if err := c.conn.SetDeadline(time.Time{}); err != nil {
			return nil, err
		}
		n.group.Go(func() { c.read(n, rest) })
	}
	return n, nil
}

// end closes all that was begun.
func (n *redisNodes) end() {
	for _, c := range n.clients {
		if c.conn != nil {
			_ = c.conn.Close()
		}
	}
	n.group.Wait()
	if n.server != nil {
		_ = n.server.Close()
	}
	for _, node := range []*redisNode{n.to, n.from} {
		if node != nil {
			node.end()
		}
	}
}

// pong answers a ping without payload: whoever answers none is taken for dead.
var pong = []byte{0x80 | opPong, 0x80, 0, 0, 0, 0}

func (c *redisClient) read(n *redisNodes, rest []byte) {
	var p frameParser
	found := p.feed(bytes.Clone(rest), nil)
	buf := make([]byte, 16<<10)
	for {
		read := now()
		c.mu.Lock()
		for _, number := range found {
			if at := time.Duration(n.at[number].Load()); at > 0 {
				c.waits = append(c.waits, read-at)
				n.left.Add(-1)
			}
		}
		c.mu.Unlock()
		got, err := c.conn.Read(buf)
		if err != nil {
			return
		}
		found = p.feed(buf[:got], found[:0])
		if p.pings > 0 {
			p.pings = 0
			if _, err := c.conn.Write(pong); err != nil {
				return
			}
		}
	}
}

// deliver publishes at a pace on one node, and has the clients of the other
// note when it is there.
func (r *redisRival) deliver(ctx context.Context, o redisSettings) (redisResult, error) {
	n := r.nodes
	result := redisResult{contestant: r.name}
	before, err := r.stats.usage(ctx)
	if err != nil {
		return result, err
	}
	used, began := cpu(), now()
	tick := time.NewTicker(time.Second / time.Duration(o.Pace))
	defer tick.Stop()
	for now()-began < o.Delivery {
		<-tick.C
		i := n.next
		if n.next++; n.next == redisMessages {
			return result, fmt.Errorf("more than %d messages", redisMessages)
		}
		channel := i % n.channels
		data := message(i, o.Payload)
		n.left.Add(n.on(channel))
		n.at[i].Store(int64(now()))
		if err := n.from.publish(readChannel(channel), data); err != nil {
			return result, err
		}
		result.published++
	}
	for deadline := now() + 2*time.Second; n.left.Load() > 0 && now() < deadline; {
		time.Sleep(5 * time.Millisecond)
	}
	result.took, result.cpu = now()-began, cpu()-used
	result.missing = int(n.left.Swap(0))
	for _, c := range n.clients {
		c.mu.Lock()
		result.waits = append(result.waits, c.waits...)
		c.waits = nil
		c.mu.Unlock()
	}
	after, err := r.stats.usage(ctx)
	result.redis = after.since(before)
	return result, err
}

// on is how many clients are on a channel.
func (n *redisNodes) on(channel int) int64 {
	return int64((len(n.clients) - channel + n.channels - 1) / n.channels)
}
