package redis

import (
	"context"
	"maps"
	"slices"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/session"
)

// A touchChunk is what one script touches: leases of one bucket.
type touchChunk struct {
	bucket int
	held   []session.Held
}

// Touch implements [session.Store].
func (l *leases) Touch(ctx context.Context, held []session.Held) (missing []session.Held, err error) {
	for _, h := range held {
		if err := h.Check(); err != nil {
			return nil, err
		}
	}
	chunks := l.chunks(held)
	for whole := false; ; {
		some := chunks[:min(len(chunks), touchChunks)]
		var replies []*goredis.Cmd
		err := l.exchange(ctx, "a touch", func(ctx context.Context) (err error) {
			replies, err = l.touch(ctx, some, whole)
			return err
		})
		if err != nil {
			return nil, err
		}
		whole = false
		for i, reply := range replies {
			if goredis.HasErrorPrefix(reply.Err(), "NOSCRIPT") {
				whole = true
				continue
			}
			done, _ := reply.Int64Slice() // it has no error
			missing = some[i].take(done, missing)
		}
		chunks = slices.DeleteFunc(chunks, func(c touchChunk) bool { return len(c.held) == 0 })
		if len(chunks) == 0 {
			return missing, nil
		}
	}
}

// chunks divides what is touched at once.
func (l *leases) chunks(held []session.Held) []touchChunk {
	buckets := make(map[int][]session.Held)
	for _, h := range held {
		b := l.bucket(h.Namespace)
		buckets[b] = append(buckets[b], h)
	}
	var chunks []touchChunk
	for _, b := range slices.Sorted(maps.Keys(buckets)) {
		for some := range slices.Chunk(buckets[b], touchLeases) {
			chunks = append(chunks, touchChunk{b, some})
		}
	}
	return chunks
}

// take takes from a chunk what a script has done of it: how many leases, and
// which of them are missing.
func (c *touchChunk) take(reply []int64, missing []session.Held) []session.Held {
	if len(reply) == 0 {
		return missing
	}
	for _, i := range reply[1:] {
		missing = append(missing, c.held[i])
	}
	c.held = c.held[reply[0]:]
	return missing
}

// touch sends the scripts for some chunks, whole or by their hash, which Redis
// may not know: then that is the error of the reply, and of nothing else.
func (l *leases) touch(ctx context.Context, chunks []touchChunk, whole bool) (replies []*goredis.Cmd, err error) {
	if len(chunks) == 0 {
		return nil, nil
	}
	_, err = l.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for _, c := range chunks {
			args := make([]any, 0, 2*len(c.held))
			for _, h := range c.held {
				args = append(args, leaseName(h), digits(h.Line))
			}
			run := touchScript.EvalSha
			if whole {
				run = touchScript.Eval
			}
			replies = append(replies, run(ctx, p, []string{l.dueKey(c.bucket)}, l.arguments(args)...))
		}
		return nil
	})
	for _, reply := range replies {
		if err := reply.Err(); err != nil && !goredis.HasErrorPrefix(err, "NOSCRIPT") {
			return nil, err
		}
	}
	if goredis.HasErrorPrefix(err, "NOSCRIPT") {
		err = nil
	}
	return replies, err
}
