package redis

import (
	"fmt"
	"hash/fnv"
	"strconv"

	"github.com/throughline/throughline/eventlog"
)

// The keys of a bucket are made by the scripts (lua/prelude.lua), all from its
// key, which has the hash tag.

// chanText names a channel in keys, so that no two have the same text.
func chanText(ch eventlog.Channel) string {
	return strconv.Itoa(len(ch.Namespace)) + ":" + ch.Namespace + ch.Name
}

// bucketOf returns the bucket of a channel.
func (l *Log) bucketOf(ch eventlog.Channel) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(chanText(ch)))
	return int(h.Sum32() % uint32(l.buckets)) //nolint:gosec // it is above zero, and small
}

func (l *Log) bucketKey(bucket int) string {
	return fmt.Sprintf("%s:{%d}", l.o.Prefix, bucket)
}

// bellKey is the pub/sub channel of a channel's bell.
func (l *Log) bellKey(ch eventlog.Channel) string {
	return l.bucketKey(l.bucketOf(ch)) + ":bell:" + chanText(ch)
}

// foundation is the key of what is fixed when the log is made.
func (l *Log) foundation() string { return l.o.Prefix + ":log" }
