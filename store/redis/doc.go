// Package redis keeps events in Redis, for many nodes: any of them resumes any
// client, and a node, a link or Redis itself may die.
//
//	client := goredis.NewClient(&goredis.Options{Addr: "127.0.0.1:6379"})
//	events, err := redis.Open(ctx, client, redis.Options{})
//	…
//	srv, err := server.New(server.Options{Log: events})
//
// There is one type that does something, [Log]: an [eventlog.Log], with
// [eventlog.History], and a [session.Store]. A server that is given one as its Log
// uses it as its Store, too. The client is the program's: for one Redis, or for
// a primary with replicas that Sentinel watches (goredis.NewFailoverClient).
// Redis 7.0 or newer is needed.
//
// # How it works
//
// A channel is a stream, and each publish one script, which applies the producer's
// rule, gives marks and offset, appends, trims, and rings the channel's bell, a pub/sub
// message without content. A node keeps a tail of the channels it serves. Each read is
// a read of the primary that began after it was asked for, shared by all who ask
// meanwhile: the tail only saves that events travel again. So what is read is never of
// a history that the primary has not, whatever bells were lost, and whoever has
// a position that the primary does not know hears of a gap.
//
// # What is lost when
//
// See [Durability]. Redis must not evict keys (maxmemory-policy noeviction), and where
// a replica may be promoted, the primary should have min-replicas-to-write 1, with
// a min-replicas-max-lag below the time after which it is promoted: so a primary that was
// replaced says nothing instead of something old. docs/deploying.md has the settings.
package redis
