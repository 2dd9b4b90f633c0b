package redis

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/redistest"
)

// TestOpenWaits: for a Redis that comes later, as long as the context says; else for
// Options.Timeout, and then says what is wrong with the way there.
func TestOpenWaits(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	client := goredis.NewClient(server.Options())
	defer client.Close()
	began := time.Now()
	_, err := Open(t.Context(), client, Options{Timeout: 2 * time.Second})
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "connection refused") || took > 6*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	time.AfterFunc(500*time.Millisecond, func() { _ = server.Restart(false) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l, err := Open(ctx, client, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

// TestOpenWhileRedisRefuses: a node can start while Redis is full, or misses its replicas.
func TestOpenWhileRedisRefuses(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	first := openOn(t, server, Options{})
	defer first.Close()
	if _, err := first.Secret(t.Context()); err != nil {
		t.Fatal(err)
	}
	send(t, first, "a")
	for option, values := range map[string][2]string{"maxmemory": {"1", "0"}, "min-replicas-to-write": {"1", "0"}} {
		if err := first.client.ConfigSet(t.Context(), option, values[0]).Err(); err != nil {
			t.Fatal(err)
		}
		l := openOn(t, server, Options{})
		_, _, err := l.Append(t.Context(), room, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte("1")}}})
		if !errors.Is(err, eventlog.ErrUnavailable) || !errors.Is(err, eventlog.ErrNotAppended) || errors.Is(err, eventlog.ErrFull) != (option == "maxmemory") {
			t.Errorf("%s: an append: %v", option, err)
		}
		if option == "maxmemory" { // then reads go on, and who comes in
			if _, err := l.Seek(t.Context(), room, eventlog.Start{Earliest: true}); err != nil {
				t.Errorf("%s: %v", option, err)
			}
			if _, err := l.Secret(t.Context()); err != nil {
				t.Errorf("%s: %v", option, err)
			}
		}
		_ = l.Close()
		if err := first.client.ConfigSet(t.Context(), option, values[1]).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSecretIsPutBack: after Redis lost everything, another node gets the secret that the
// first one knows, and tokens stay good.
func TestSecretIsPutBack(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	l := openOn(t, server, Options{})
	defer l.Close()
	before, err := l.Secret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Seek(t.Context(), room, eventlog.Start{}); err != nil { // which notices
		t.Fatal(err)
	}
	other := openOn(t, server, Options{})
	defer other.Close()
	if after, err := other.Secret(t.Context()); err != nil || !bytes.Equal(before, after) {
		t.Errorf("another one, %v", err)
	}
}

// TestReadsCreateNoKeys: neither reads, in whatever channel, nor watching.
func TestReadsCreateNoKeys(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	l := openOn(t, server, Options{Buckets: 1})
	defer l.Close()
	keys := func() []string { return l.client.Keys(t.Context(), "*").Val() }
	before := keys()
	for _, name := range []string{"a", "b", "c"} {
		ch := eventlog.Channel{Name: name}
		stop := l.Watch(ch, func() {})
		at, err := l.Seek(t.Context(), ch, eventlog.Start{Last: 3})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Read(t.Context(), ch, at, eventlog.Limit{}); err != nil {
			t.Error(err)
		}
		if _, err := l.Range(t.Context(), ch, eventlog.Range{}, eventlog.Limit{}); err != nil {
			t.Error(err)
		}
		stop()
	}
	if after := keys(); len(after) != len(before) || len(before) != 2 { // what is fixed, and the bucket's generation
		t.Errorf("keys before: %q, after: %q", before, after)
	}
}

// TestProducersLeaveNothing: of one that is forgotten nothing stays in Redis.
func TestProducersLeaveNothing(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	l := openOn(t, server, Options{Buckets: 1})
	defer l.Close()
	send(t, l, "a")
	before := l.client.Keys(t.Context(), "*").Val()
	b := eventlog.Batch{Messages: []eventlog.Message{{Data: []byte("1")}}, Producer: eventlog.Producer{Owner: "o", ID: "p", Seq: 1}}
	if _, _, err := l.Append(t.Context(), room, b); err != nil {
		t.Fatal(err)
	}
	if during := l.client.Keys(t.Context(), "*").Val(); len(during) != len(before)+3 {
		t.Fatalf("with a producer: %q", during)
	}
	l.o.RememberProducers = 0 // it is long ago
	if err := l.sweep(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if after := l.client.Keys(t.Context(), "*").Val(); len(after) != len(before) {
		t.Errorf("keys before: %q, after: %q", before, after)
	}
}
