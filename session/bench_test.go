package session

import (
	"fmt"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
)

func BenchmarkVerify(b *testing.B) {
	k := newKeys(b, time.Hour, keyA)
	text := k.Sign(annsPage, noon)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Verify(text, ann, noon); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory does each thing among many members of one channel.
func BenchmarkMemory(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		m := NewMemory(MemoryOptions{})
		all := make([]Held, n)
		l := Lease{Channels: []string{"a"}, For: time.Minute}
		for i := range all {
			all[i] = Held{ID: NewID()}
			mustClaim(b, m, all[i], l)
		}
		do := func(name string, what func(i int) error) {
			b.Run(fmt.Sprintf("%s/members=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if err := what(i); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		do("claim", func(i int) error { return m.Claim(b.Context(), all[i%n], l) })
		do("touch", func(i int) error { _, err := m.Touch(b.Context(), all[i%n:i%n+1]); return err })
		do("present", func(int) error {
			_, _, err := m.Present(b.Context(), eventlog.Channel{Name: "a"}, 500)
			return err
		})
		m.Close()
	}
}
