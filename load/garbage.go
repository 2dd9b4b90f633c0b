//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"
)

// garbagePause is between two connections of one client that sends garbage.
const garbagePause = 20 * time.Millisecond

// sendGarbage connects, sends one kind of garbage after the other, and goes on
// when the server has ended the connection or let the garbage pass.
func (g *gang) sendGarbage(ctx context.Context, c culprit) {
	kinds := garbage(g.plan.Prefix, g.plan.Channels[0])
	random := rand.New(rand.NewPCG(uint64(c.number), 1))
	for i := c.number; ctx.Err() == nil; i++ {
		conn := g.dial(ctx, c, usual)
		if conn == nil {
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		_, err := conn.Write(kinds[i%len(kinds)](random)) // fails if the server has heard enough
		n, err2 := io.CopyN(io.Discard, conn, 64<<10)
		g.garbage.Add(1)
		if err != nil || n > 0 || errors.Is(err2, io.EOF) {
			g.answered.Add(1)
		}
		abort(conn)
		pause(ctx, garbagePause)
	}
}

// garbage is all the kinds that there are.
func garbage(prefix, channel string) (kinds []func(*rand.Rand) []byte) {
	add := func(f func(*rand.Rand) []byte) { kinds = append(kinds, f) }
	for _, f := range httpGarbage(prefix, channel) {
		add(f)
	}
	plain := inquiry{Carrier: plainWS, Prefix: prefix, Channel: channel}.request()
	session := inquiry{Carrier: sessionWS, Prefix: prefix, Channel: channel, Line: 1}.request()
	bare, _, _ := bytes.Cut(session, []byte("\r\n\r\n"))
	bare = append(bytes.Clone(bare), "\r\n\r\n"...) // without the hello
	for _, f := range frameGarbage() {
		add(func(r *rand.Rand) []byte { return join(plain, f(r)) })
		add(func(r *rand.Rand) []byte { return join(bare, f(r)) })
		add(func(r *rand.Rand) []byte { return join(session, f(r)) })
	}
	return kinds
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// httpGarbage is what should never have been a request.
func httpGarbage(prefix, channel string) []func(*rand.Rand) []byte {
	at := base + prefix
	get := func(path, more string) string {
		return "GET " + at + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + more + "\r\n"
	}
	post := func(path, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", at+path, len(body), body)
	}
	text := func(s string) func(*rand.Rand) []byte { return func(*rand.Rand) []byte { return []byte(s) } }
	return []func(*rand.Rand) []byte{
		func(r *rand.Rand) []byte { return noise(r, 4096) },
		func(r *rand.Rand) []byte { return append(noise(r, 200), '\r', '\n', '\r', '\n') },
		text("GET / HTTP/9.9\r\n\r\n"),
		text("GET " + at + "sse"), // and no more
		text(get("sse?channel="+channel, "X: "+strings.Repeat("x", 2<<20)+"\r\n")),
		text(get("sse?channel="+channel, strings.Repeat("X: x\r\n", 20_000))),
		text(get("sse?channel=%00%ff&after=%zz", "")),
		text(get("sse?channel="+channel+"&after="+strings.Repeat("9", 5000), "")),
		text(get("poll?channel="+strings.Repeat("x&channel=", 5000), "")),
		text(get("poll?channel="+channel+"&wait=-5s&after=nonsense", "")),
		text(get("ws?channel="+channel, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 99\r\n")),
		text(post("sse", `{"hello":`)),
		text(post("sse", "{\"hello\":{\"version\":1,\"channels\":[{\"channel\":\"\xff\xfe\"}]}}")),
		text(post("sse", strings.Repeat("[", 60_000))),
		text(post("poll", strings.Repeat(`{"hello":`, 100_000))),
		text(post("poll", `{"hello":{"version":1,"line":-1,"channels":[{}]}}`)),
		text(post("up", `{"up":{"version":1},"publish":{"producer":"x","frames":[{}]}}`)),
		text(post("publish?channel="+channel, "not for you")),
		text("POST " + at + "sse HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\nx"),
		text("POST " + at + "poll HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n{"), // and no more
	}
}

// frameGarbage is what should never have come over a WebSocket.
func frameGarbage() []func(*rand.Rand) []byte {
	raw := func(b ...byte) func(*rand.Rand) []byte { return func(*rand.Rand) []byte { return b } }
	text := func(s string) func(*rand.Rand) []byte {
		return func(*rand.Rand) []byte { return appendFrame(nil, opText, []byte(s)) }
	}
	return []func(*rand.Rand) []byte{
		func(r *rand.Rand) []byte { return noise(r, 4096) },
		func(r *rand.Rand) []byte { return appendFrame(nil, opText, noise(r, 300)) }, // no UTF-8
		func(r *rand.Rand) []byte { return appendFrame(nil, 0x2, noise(r, 300)) },    // binary
		raw(0x81, 0x05, 'h', 'e', 'l', 'l', 'o'),                                     // not masked
		raw(0xF1, 0x80, 0, 0, 0, 0),                                                  // reserved bits
		raw(0x83, 0x80, 0, 0, 0, 0),                                                  // a reserved opcode
		raw(0x09, 0x80, 0, 0, 0, 0),                                                  // a ping in pieces
		raw(0x89, 0xFE, 0xFF, 0xFF, 0, 0, 0, 0),                                      // a ping of 64 KiB
		raw(0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0),  // 2^63 bytes are to come
		raw(0x88, 0x81, 0, 0, 0, 0, 1),                                               // a close frame with half a code
		raw(0x80, 0x80, 0, 0, 0, 0),                                                  // goes on with nothing
		text(`{"hello":`),
		text(strings.Repeat("[", 30_000)),
		text(`{"hello":{"version":77}}`),
		text(`{"hello":{"version":1,"token":"` + strings.Repeat("x", 20_000) + `"}}`),
		text(`{"subscribe":[{"channel":"a","after":"nonsense"},{"channel":""},{"channel":"\u0000"}]}`),
		text(`{"publish":{"producer":"short","frames":[]}}`),
		text(`{"call":{"id":0,"name":""}}`),
		func(*rand.Rand) []byte {
			return bytes.Repeat(appendFrame(nil, opText, bytes.Repeat([]byte(" "), 60_000)), 4)
		},
		func(*rand.Rand) []byte { return bytes.Repeat(appendFrame(nil, opPing, []byte("are you there?")), 2000) },
		func(*rand.Rand) []byte {
			return bytes.Repeat(appendFrame(nil, opText, []byte(`{"subscribe":[{"channel":"load-0"}]}`)), 500)
		},
	}
}
