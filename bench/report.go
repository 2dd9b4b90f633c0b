package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// report prints what was measured as Markdown.
func report(w io.Writer, o settings, args []string, before string, results []result) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Command: `%s`\n", strings.TrimSpace("go run . "+strings.Join(args, " ")))
	fmt.Fprintf(&b, "Date: %s\n", time.Now().UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "Versions: %s\nMachine: %s, load average %s before and %s after\n", versions(), host(), before, load())
	fmt.Fprintf(&b, "Loads: %d clients on one channel, %d bytes of data, %d rounds; paced: %d messages, %d in a second; burst: %d messages back to back\n",
		o.Clients, o.Payload, o.Rounds, o.Paced, o.Pace, o.Burst)
	fmt.Fprint(&b, "Figures: min / median / max over rounds; ratios: median of the ratios within a round\n\n")
	reportPaced(&b, o, results)
	reportBurst(&b, o, results)
	for _, c := range contestants() {
		if len(of(results, loadBurst, c.name)) > 0 {
			fmt.Fprintf(&b, "- `%s`: %s.\n", c.name, c.about)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func reportPaced(b *bytes.Buffer, o settings, results []result) {
	reportHead(b, "Paced", "last client has it after, ms", "worst, ms")
	for _, c := range contestants() {
		rs := of(results, loadPaced, c.name)
		if len(rs) == 0 {
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", c.name,
			columns(results, rs, cpuPerDelivery), columns(results, rs, lastMillis),
			digits(summarise(values(rs, worstMillis)).Max),
			medianOf(rs, garbage), medianOf(rs, wireBytes), medianOf(rs, drainCPU), faults(o, rs))
	}
	fmt.Fprintln(b)
}

func reportBurst(b *bytes.Buffer, o settings, results []result) {
	reportHead(b, "Burst", "all have all after, ms", "publishing took, ms")
	for _, c := range contestants() {
		rs := of(results, loadBurst, c.name)
		if len(rs) == 0 {
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", c.name,
			columns(results, rs, cpuPerDelivery), columns(results, rs, wallMillis), medianOf(rs, publishMillis),
			medianOf(rs, garbage), medianOf(rs, wireBytes), medianOf(rs, drainCPU), faults(o, rs))
	}
	fmt.Fprintln(b)
}

func reportHead(b *bytes.Buffer, name, wall, other string) {
	columns := []string{
		"", "server CPU per delivery, µs", "to bare", "to ours", wall, "to bare", "to ours", other,
		"garbage per delivery, B", "on the wire, B", "drain CPU, µs", "",
	}
	fmt.Fprintf(b, "**%s**\n\n| %s |\n%s|\n", name, strings.Join(columns, " | "), strings.Repeat("|---", len(columns)))
}

// columns are a figure and its ratios to that of the floor, and to ours.
func columns(all, rs []result, figure func(result) float64) string {
	s := []string{summarise(values(rs, figure)).String()}
	for _, base := range []string{bareName, oursName} {
		r, ok := ratio(byRound(rs, figure), byRound(of(all, rs[0].Load, base), figure))
		if !ok {
			s = append(s, "–")
			continue
		}
		s = append(s, digits(r))
	}
	return strings.Join(s, " | ")
}

func medianOf(rs []result, figure func(result) float64) string {
	return digits(summarise(values(rs, figure)).Median)
}

// The figures.

func perDelivery(r result, v float64) float64 { return v / float64(max(r.Tally.Delivered, 1)) }

func cpuPerDelivery(r result) float64 { return perDelivery(r, float64(r.CPU.Nanoseconds())/1e3) }
func garbage(r result) float64        { return perDelivery(r, float64(r.Allocated)) }
func wireBytes(r result) float64      { return perDelivery(r, float64(r.Tally.Bytes)) }
func drainCPU(r result) float64       { return perDelivery(r, float64(r.Tally.CPU)/1e3) }
func wallMillis(r result) float64     { return millis(r.Wall) }
func publishMillis(r result) float64  { return millis(r.Publish) }
func lastMillis(r result) float64     { return summarise(lasts(r)).Median }
func worstMillis(r result) float64    { return summarise(lasts(r)).Max }
func millis(d time.Duration) float64  { return float64(d.Nanoseconds()) / 1e6 }

func lasts(r result) []float64 {
	all := make([]float64, len(r.Last))
	for i, d := range r.Last {
		all[i] = millis(d)
	}
	return all
}

// faults tells what did not go well, over all rounds. Figures of a contestant
// that lost events are not to be compared.
func faults(o settings, rs []result) string {
	var missing, disorder, late int
	ended := map[string]int{}
	errs := map[string]int{}
	for _, r := range rs {
		missing += r.Tally.Missing
		disorder += r.Tally.Disorder
		late += r.Late
		for why, n := range r.Tally.Ended {
			ended[why] += n
		}
		if r.Error != "" {
			errs[r.Error]++
		}
	}
	var s []string
	if missing > 0 {
		s = append(s, fmt.Sprintf("**%d events lost**", missing))
	}
	if disorder > 0 {
		s = append(s, fmt.Sprintf("**%d events twice or in disorder**", disorder))
	}
	for _, why := range slices.Sorted(maps.Keys(ended)) {
		s = append(s, fmt.Sprintf("**%d of %d connections ended: %s**", ended[why], o.Clients*len(rs), why))
	}
	for _, err := range slices.Sorted(maps.Keys(errs)) {
		s = append(s, fmt.Sprintf("**%d times: %s**", errs[err], err))
	}
	if late > 0 {
		s = append(s, fmt.Sprintf("%d messages overlapped the next", late))
	}
	if len(s) == 0 {
		return "all delivered, in order"
	}
	return strings.ReplaceAll(strings.Join(s, "; "), "|", "/")
}

func of(results []result, load, name string) (rs []result) {
	for _, r := range results {
		if r.Load == load && r.Contestant == name {
			rs = append(rs, r)
		}
	}
	return rs
}

func values(rs []result, figure func(result) float64) []float64 {
	all := make([]float64, len(rs))
	for i, r := range rs {
		all[i] = figure(r)
	}
	return all
}

func byRound(rs []result, figure func(result) float64) map[int]float64 {
	m := make(map[int]float64, len(rs))
	for _, r := range rs {
		m[r.Round] = figure(r)
	}
	return m
}
