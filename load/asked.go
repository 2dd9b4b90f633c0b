//go:build linux

package main

import (
	"context"
	"crypto/sha1" //nolint:gosec // it is what Redis names scripts by
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/store/redis"
)

// asked counts what a node asks of Redis, by commands and scripts. It is a hook of the
// node's client.
type asked struct {
	mu    sync.Mutex
	calls map[string]int    // guarded by mu; of scripts by their hashes
	names map[string]string // guarded by mu; of scripts that this node had Redis load
}

// signatures tell from their texts which scripts are which.
var signatures = []struct{ name, text string }{
	{"append", "\n-- append adds "},
	{"tail", "\n-- tail brings "},
	{"part", "\n-- part reads "},
	{"seek", "\n-- seek finds "},
	{"confirm", "\n-- confirm lets "},
	{"renew", "\n-- renew keeps "},
	{"last", "\n-- last tells "},
	{"begin", "\n-- begin makes a bucket's "},
	{"sweep", "\n-- sweep clears a bucket "},
	{"claim", "-- ARGV[4..9]: the lease's name, its line, for how long, "},
	{"touch", "-- ARGV[4..]: leases, "},
	{"release", "-- ARGV[4..7]: the lease's name, the line, "},
	{"present", "-- ARGV[4..7]: the namespace "},
	{"secret", "-- KEYS[1]: the secret."},
}

// open opens the log of a Redis, of which all nodes share what is shared.
func (a *asked) open(ctx context.Context, addr string, logger *slog.Logger) (*redis.Log, error) {
	a.calls, a.names = map[string]int{}, map[string]string{}
	client := goredis.NewClient(&goredis.Options{Addr: addr})
	client.AddHook(a)
	return redis.Open(ctx, client, redis.Options{Logger: logger})
}

// DialHook implements [goredis.Hook], as do the others.
func (a *asked) DialHook(next goredis.DialHook) goredis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (a *asked) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, c goredis.Cmder) error {
		a.count(c)
		return next(ctx, c)
	}
}

func (a *asked) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, all []goredis.Cmder) error {
		a.count(all...)
		return next(ctx, all)
	}
}

func (a *asked) count(all ...goredis.Cmder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range all {
		args := c.Args()
		name := c.Name()
		switch {
		case name == "evalsha" && len(args) > 1:
			name = fmt.Sprint(args[1])
		case name == "eval" && len(args) > 1:
			name = a.learn(fmt.Sprint(args[1]))
		case name == "script" && len(args) > 2:
			a.learn(fmt.Sprint(args[2]))
		}
		a.calls[name]++
	}
}

// learn notes which script a text is. Called with mu held.
func (a *asked) learn(text string) (hash string) {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see above
	hash = hex.EncodeToString(sum[:])
	for _, s := range signatures {
		if strings.Contains(text, s.text) {
			a.names[hash] = s.name
			break
		}
	}
	return hash
}

// An asking is what a node has asked so far, and what it knows of scripts.
type asking struct {
	Calls map[string]int
	Names map[string]string
}

func (a *asked) told(context.Context, none) (asking, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return asking{maps.Clone(a.calls), maps.Clone(a.names)}, nil
}

// A redisUsage is what a Redis has done so far.
type redisUsage struct {
	CPU   time.Duration
	Calls map[string]int           // by command, as commandstats has them: those that scripts make, too
	Took  map[string]time.Duration // by command
}

func usageOf(ctx context.Context, client *goredis.Client) (u redisUsage, err error) {
	u.Calls, u.Took = map[string]int{}, map[string]time.Duration{}
	text, err := client.Info(ctx, "cpu", "commandstats").Result()
	if err != nil {
		return u, err
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if command, is := strings.CutPrefix(name, "cmdstat_"); is {
			var calls, micros int
			if _, err := fmt.Sscanf(value, "calls=%d,usec=%d,", &calls, &micros); err != nil {
				return u, fmt.Errorf("%q: %w", line, err)
			}
			u.Calls[command], u.Took[command] = calls, time.Duration(micros)*time.Microsecond
		}
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return u, err
			}
			u.CPU += time.Duration(seconds * float64(time.Second))
		}
	}
	return u, nil
}

// since is what was done since an earlier count.
func since(after, before map[string]int) map[string]int {
	d := map[string]int{}
	for name, n := range after {
		if n -= before[name]; n > 0 && name != "info" {
			d[name] = n
		}
	}
	return d
}

// withServers schedules a Redis as the servers are, which else would keep it waiting.
func withServers(ctx context.Context, client *goredis.Client) error {
	if !realtime() {
		return nil
	}
	info, err := client.Info(ctx, "server").Result()
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(info, "process_id:")
	pid, _, _ := strings.Cut(rest, "\r")
	return exec.CommandContext(ctx, "chrt", "--rr", "--pid", "1", pid).Run()
}
