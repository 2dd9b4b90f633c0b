package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// within bounds a bubble in its own time.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 1000*time.Hour)
	t.Cleanup(cancel)
	return ctx
}

func TestBubbleTimePasses(t *testing.T) {
	s := Start(t, Options{})
	synctest.Test(t, func(t *testing.T) {
		ctx := within(t)
		client := NewBubble().Client(s)
		defer client.Close()
		for day := range 10 {
			began := time.Now()
			if err := client.Set(ctx, "day", day, 0).Err(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != 0 {
				t.Errorf("an answer took %v of fake time", took)
			}
			time.Sleep(24 * time.Hour)
			if got, err := client.Get(ctx, "day").Int(); err != nil || got != day {
				t.Fatalf("on day %d: %d, %v", day, got, err)
			}
		}
	})
}

func TestBubbleLargeAnswers(t *testing.T) {
	s := Start(t, Options{})
	synctest.Test(t, func(t *testing.T) {
		ctx := within(t)
		client := NewBubble().Client(s)
		defer client.Close()
		long := strings.Repeat("x", 5<<20)
		var gets []*goredis.StringCmd
		_, err := client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			p.Set(ctx, "long", long, 0)
			for range 10 {
				gets = append(gets, p.Get(ctx, "long"))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, get := range gets {
			if get.Val() != long {
				t.Errorf("%d bytes came back, not %d", len(get.Val()), len(long))
			}
		}
	})
}

// TestBubblePublished: whatever a command published is heard before time passes.
func TestBubblePublished(t *testing.T) {
	s := Start(t, Options{})
	synctest.Test(t, func(t *testing.T) {
		ctx := within(t)
		bubble := NewBubble()
		client, other := bubble.Client(s), bubble.Client(s)
		defer client.Close()
		defer other.Close()
		heard := client.Subscribe(ctx, "bell")
		defer heard.Close()
		messages := heard.Channel()
		time.Sleep(24 * time.Hour)
		for i := range 200 {
			script := "redis.call('PUBLISH', 'bell', ARGV[1]) return 1"
			if err := other.Eval(ctx, script, nil, i).Err(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if got := (<-messages).Payload; got != fmt.Sprint(i) || time.Since(began) != 0 {
				t.Fatalf("heard %q, not %d, after %v", got, i, time.Since(began))
			}
			time.Sleep(time.Minute)
		}
	})
}

// TestBubbleDeadline: a subscription that hears nothing ends by its deadline.
func TestBubbleDeadline(t *testing.T) {
	s := Start(t, Options{})
	synctest.Test(t, func(t *testing.T) {
		ctx := within(t)
		client := NewBubble().Client(s)
		defer client.Close()
		heard := client.Subscribe(ctx, "bell")
		defer heard.Close()
		if _, err := heard.Receive(ctx); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err := heard.ReceiveTimeout(ctx, time.Hour)
		if nerr, ok := errors.AsType[net.Error](err); !ok || !nerr.Timeout() || time.Since(began) != time.Hour {
			t.Errorf("after %v: %v, not a timeout after an hour", time.Since(began), err)
		}
	})
}

// TestBubbleDeafServer: one that is paused ends a command by its deadline, with
// the fake time that takes.
func TestBubbleDeafServer(t *testing.T) {
	s := Start(t, Options{})
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		bubble := NewBubble()
		bubble.Patience = 200 * time.Millisecond
		o := bubble.Options(s)
		o.MaxRetries = -1
		client := goredis.NewClient(o)
		defer client.Close()
		if err := client.Ping(within(t)).Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.Pause(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if err := client.Ping(ctx).Err(); err == nil || time.Since(began) != 3*time.Second {
			t.Errorf("after %v of a paused server: %v", time.Since(began), err)
		}
	})
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 200*time.Millisecond || took > 2*time.Second {
		t.Errorf("it took %v of real time", took)
	}
	if err := s.Client(t).Ping(t.Context()).Err(); err != nil {
		t.Errorf("after a pause: %v", err)
	}
}
