package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// reportRedis prints what was measured as Markdown.
func reportRedis(w io.Writer, o redisSettings, args []string, before string, results []redisResult) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Command: `%s`\n", strings.TrimSpace("go run . redis "+strings.Join(args, " ")))
	fmt.Fprintf(&b, "Date: %s\n", time.Now().UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "Versions: %s, go-redis %s\nMachine: %s, load average %s before and %s after\n", versions(), goredis.Version(), host(), before, load())
	fmt.Fprintf(&b, "Loads: %d channels, %d bytes of data, %d events and %v kept; %d rounds; publishing: slices of %v; delivery: slices of %v, %d publishes a second, %d clients on the other node\n",
		o.Channels, o.Payload, o.Keep, redisKeepFor, o.Rounds, o.Slice, o.Delivery, o.Pace, o.Clients)
	fmt.Fprint(&b, "Figures: min / median / max over rounds; ratios: median of the ratios within a round\n\n")
	for _, publishers := range redisPublishers {
		reportRedisPublishing(&b, publishers, results)
	}
	reportRedisDelivery(&b, results)
	fmt.Fprintf(&b, "Commands of Redis for each publish, those that scripts call among them (%d publishers):\n\n", redisPublishers[len(redisPublishers)-1])
	for _, c := range redisContestants() {
		if rs := ofRedis(results, c.name, redisPublishers[len(redisPublishers)-1]); len(rs) > 0 {
			fmt.Fprintf(&b, "- `%s`: %s\n", c.name, commandsPer(rs))
		}
	}
	fmt.Fprintln(&b)
	for _, c := range redisContestants() {
		if len(o.Only) == 0 || slices.Contains(o.Only, c.name) {
			fmt.Fprintf(&b, "- `%s`: %s.\n", c.name, c.about)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func reportRedisPublishing(b *bytes.Buffer, publishers int, results []redisResult) {
	plural := "s"
	if publishers == 1 {
		plural = ""
	}
	fmt.Fprintf(b, "**%d publisher%s**\n\n", publishers, plural)
	fmt.Fprint(b, "|  | publishes a second | to ours | a publish takes, p50, ms | p99, ms | Redis CPU per publish, µs | to ours | publisher's CPU, µs |\n|---|---|---|---|---|---|---|---|\n")
	for _, c := range redisContestants() {
		rs := ofRedis(results, c.name, publishers)
		if len(rs) == 0 {
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", c.name,
			redisSummary(rs, perSecond), redisRatio(results, rs, perSecond),
			redisSummary(rs, p50), redisSummary(rs, p99),
			redisSummary(rs, redisCPU), redisRatio(results, rs, redisCPU), redisSummary(rs, ownCPU))
	}
	fmt.Fprintln(b)
}

func reportRedisDelivery(b *bytes.Buffer, results []redisResult) {
	if !slices.ContainsFunc(results, func(r redisResult) bool { return r.publishers == 0 }) {
		return
	}
	fmt.Fprint(b, "**Delivery, from a publish on one node to clients of another**\n\n")
	fmt.Fprint(b, "|  | p50, ms | to ours | p99, ms | to ours | most, ms | Redis CPU per publish, µs | to ours | CPU of nodes and clients per publish, µs | to ours |  |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, c := range redisContestants() {
		rs := ofRedis(results, c.name, 0)
		if len(rs) == 0 {
			continue
		}
		missing := 0
		for _, r := range rs {
			missing += r.missing
		}
		fault := "all delivered"
		if missing > 0 {
			fault = fmt.Sprintf("**%d deliveries missing**", missing)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", c.name,
			redisSummary(rs, p50), redisRatio(results, rs, p50), redisSummary(rs, p99), redisRatio(results, rs, p99), redisSummary(rs, most),
			redisSummary(rs, redisCPU), redisRatio(results, rs, redisCPU), redisSummary(rs, ownCPU), redisRatio(results, rs, ownCPU), fault)
	}
	fmt.Fprintln(b)
}

// The figures.

func perSecond(r redisResult) float64 { return float64(r.published) / r.took.Seconds() }
func redisCPU(r redisResult) float64  { return micros(r.redis.cpu) / float64(max(r.published, 1)) }
func ownCPU(r redisResult) float64    { return micros(r.cpu) / float64(max(r.published, 1)) }
func p50(r redisResult) float64       { return waited(r, 0.5) }
func p99(r redisResult) float64       { return waited(r, 0.99) }
func most(r redisResult) float64      { return waited(r, 1) }

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// waited is a quantile, in ms.
func waited(r redisResult, q float64) float64 {
	if len(r.waits) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(r.waits))
	return millis(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))])
}

func ofRedis(results []redisResult, name string, publishers int) (rs []redisResult) {
	for _, r := range results {
		if r.contestant == name && r.publishers == publishers {
			rs = append(rs, r)
		}
	}
	return rs
}

func redisSummary(rs []redisResult, figure func(redisResult) float64) string {
	var all []float64
	for _, r := range rs {
		all = append(all, figure(r))
	}
	return summarise(all).String()
}

// redisRatio is to ours, within rounds.
func redisRatio(all, rs []redisResult, figure func(redisResult) float64) string {
	by := func(rs []redisResult) map[int]float64 {
		m := map[int]float64{}
		for _, r := range rs {
			m[r.round] = figure(r)
		}
		return m
	}
	ratio, ok := ratio(by(rs), by(ofRedis(all, redisOurs, rs[0].publishers)))
	if !ok {
		return "–"
	}
	return digits(ratio)
}
