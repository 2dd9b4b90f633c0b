package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	defaultBuckets = 16
	// form is that of what the keys hold. A program of another one must not touch them.
	form = "1"
)

// found learns of the log what is fixed, or makes it, if there is none. It tries for as
// long as Open may take.
func (l *Log) found(ctx context.Context, named int) error {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.o.Timeout)
		defer cancel()
	}
	var why error // the last that Redis, or the way there, gave
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := l.foundOnce(ctx, named)
		if err == nil || !isUnavailable(err) {
			return err
		}
		if why == nil || ctx.Err() == nil {
			why = err
		}
		pause := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return why
		}
	}
}

func (l *Log) foundOnce(ctx context.Context, named int) error {
	l.buckets = max(named, 0)
	if l.buckets == 0 {
		l.buckets = defaultBuckets
	}
	values, err := l.fixed(ctx)
	if err == nil && values[0] == nil {
		if err = l.lay(ctx); err == nil {
			values, err = l.fixed(ctx)
		}
	}
	if err != nil {
		return err
	}
	text, of := fmt.Sprint(values[0]), fmt.Sprint(values[1])
	buckets, err := strconv.Atoi(text)
	switch {
	case of != form:
		return fmt.Errorf("the log %q is of form %.40q, and this program knows form %s", l.o.Prefix, of, form)
	case err != nil || buckets < 1:
		return fmt.Errorf("the key %s is not one of ours: buckets are %.40q", l.foundation(), text)
	case named > 0 && buckets != named:
		return fmt.Errorf("the log %q has %d buckets, not %d (Options.Buckets)", l.o.Prefix, buckets, named)
	}
	l.buckets = buckets
	// Redis may refuse to write now, and the first who need it make it then; but if it
	// can't read our scripts it never will.
	_, err = l.pipe.ask(ctx, l.beginning(0))
	switch {
	case err != nil && strings.Contains(err.Error(), "compiling script"):
		return errors.New("this Redis doesn't know what scripts say of themselves: 7.0 or newer is needed")
	case errors.Is(err, errNotDone):
		return nil
	}
	return err
}

// fixed reads what is fixed: nil is what is not there. It is asked once, so that its error
// is the one of the first dial, and not that the time was over.
func (l *Log) fixed(ctx context.Context) ([]any, error) {
	command := once{goredis.NewCmd(ctx, "hmget", l.foundation(), "buckets", "form")}
	_, err := l.client.Pipelined(ctx, func(p goredis.Pipeliner) error { return p.Process(ctx, command) })
	values, _ := command.Val().([]any)
	if err == nil && len(values) != 2 {
		err = errReply
	}
	if err != nil {
		return nil, unavailable(err)
	}
	return values, nil
}

// lay writes what is fixed when the log is made, unless it is there.
func (l *Log) lay(ctx context.Context) error {
	_, err := l.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		p.HSetNX(ctx, l.foundation(), "buckets", l.buckets)
		p.HSetNX(ctx, l.foundation(), "form", form)
		return nil
	})
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// again begins a bucket of which Redis knows nothing: the log is new, or was lost. Then
// what nodes know of it is put back: the secret, so that tokens stay good.
func (l *Log) again(ctx context.Context, bucket int) error {
	if err := l.lay(ctx); err != nil {
		return err
	}
	l.leases.keepSecret(ctx)
	_, err := l.pipe.ask(ctx, l.beginning(bucket))
	return err
}

func (l *Log) beginning(bucket int) *call {
	return &call{script: beginScript, key: l.bucketKey(bucket), args: l.args("", secret(), secret())}
}

// warn says what will go wrong one day, as far as Redis shows how it is set up.
func (l *Log) warn(ctx context.Context) {
	const option = "maxmemory-policy"
	got, err := l.client.ConfigGet(ctx, option).Result()
	if policy := got[option]; err == nil && policy != "" && policy != "noeviction" {
		l.o.Logger.Warn("redis evicts keys", "maxmemory-policy", policy, "note", "when memory is short it deletes events, and what is known of channels: have it noeviction")
	}
}
