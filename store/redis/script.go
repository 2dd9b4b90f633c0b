package redis

import (
	"context"
	"crypto/sha1" //nolint:gosec // it is what Redis names scripts by
	_ "embed"
	"encoding/hex"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// A script is one that Redis runs, known there by its hash.
type script struct{ text, hash string }

var (
	//go:embed lua/prelude.lua
	preludeText string
	//go:embed lua/forget.lua
	forgetText string
	//go:embed lua/begin.lua
	beginText string
	//go:embed lua/append.lua
	addText string
	//go:embed lua/confirm.lua
	confirmText string
	//go:embed lua/tail.lua
	tailText string
	//go:embed lua/part.lua
	partText string
	//go:embed lua/seek.lua
	seekText string
	//go:embed lua/renew.lua
	renewText string
	//go:embed lua/last.lua
	lastText string
	//go:embed lua/sweep.lua
	sweepText string
)

// What only reads, and what frees memory, is done also when Redis has none left.
var (
	appendScript  = newScript("#!lua", preludeText, forgetText, addText)
	beginScript   = newScript("#!lua", preludeText, beginText)
	confirmScript = newScript("#!lua flags=allow-oom", preludeText, confirmText)
	tailScript    = newScript("#!lua flags=allow-oom", preludeText, tailText)
	partScript    = newScript("#!lua flags=allow-oom", preludeText, partText)
	seekScript    = newScript("#!lua flags=allow-oom", preludeText, seekText)
	renewScript   = newScript("#!lua flags=allow-oom", preludeText, renewText)
	lastScript    = newScript("#!lua flags=allow-oom", preludeText, lastText)
	sweepScript   = newScript("#!lua flags=allow-oom", preludeText, forgetText, sweepText)
)

func newScript(parts ...string) *script {
	text := strings.Join(parts, "\n")
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see above
	return &script{text: text, hash: hex.EncodeToString(sum[:])}
}

// once is a command that the client must not repeat of its own accord: of what
// appends, nobody knows whether it did.
type once struct{ *goredis.Cmd }

// NoRetry implements [goredis.Cmder].
func (once) NoRetry() bool { return true }

// command makes the command that runs a script on a bucket.
func (s *script) command(ctx context.Context, key string, args []any) once {
	all := make([]any, 0, 4+len(args))
	all = append(all, "evalsha", s.hash, 1, key)
	return once{goredis.NewCmd(ctx, append(all, args...)...)}
}

// isUnknown reports whether Redis doesn't know a script, which so did not run.
func isUnknown(err error) bool { return goredis.HasErrorPrefix(err, "NOSCRIPT") }
