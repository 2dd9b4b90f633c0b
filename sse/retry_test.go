package sse

import (
	"testing"
	"time"

	"github.com/throughline/throughline/transport"
)

// TestLaterIsNeverAtOnce: a refusal "later" of a program that names no delay does
// not have an EventSource come back again and again.
func TestLaterIsNeverAtOnce(t *testing.T) {
	c := &conn{retry: 3 * time.Second}
	for after, want := range map[time.Duration]string{0: "retry: 3000\n\n", 7 * time.Second: "retry: 7000\n\n"} {
		got := string(c.appendGoodbye(nil, transport.Reason{Class: transport.Later, After: after}))
		if got != want {
			t.Errorf("after %v: %q, want %q", after, got, want)
		}
	}
}
