package limit

import (
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime"
	"testing"
)

// nth is one of many networks of clients.
func nth(i int) netip.Prefix {
	return Key(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i), 15: 1}), 64)
}

const many = 65_536

// BenchmarkTake takes in parallel: from one bucket, from those of many keys that
// are known, by keys that are all new, and by new ones when there is no room.
func BenchmarkTake(b *testing.B) {
	fast, slow := Rate{PerSecond: 1e8, Burst: 1 << 30}, Rate{PerSecond: 1e-3, Burst: 1 << 30}
	keys := make([]netip.Prefix, 1<<22)
	for i := range keys {
		keys[i] = nth(i)
	}
	for _, c := range []struct {
		name       string
		r          Rate
		known      int // keys, beforehand
		from, many int // the keys used
	}{
		{"one", fast, 1, 0, 1},
		{"known=1000", slow, 1000, 0, 1000},
		{"known=65536", slow, many, 0, many},
		{"new", fast, 0, 0, len(keys)},
		{"overflow", slow, many, many, len(keys) - many},
	} {
		b.Run(c.name, func(b *testing.B) {
			buckets := NewBuckets[netip.Prefix](c.r, many)
			for _, key := range keys[:c.known] {
				buckets.Take(key, 1)
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := rand.IntN(c.many); pb.Next(); i++ {
					buckets.Take(keys[c.from+i%c.many], 1)
				}
			})
		})
	}
}

// BenchmarkForget is what a new key costs while others are forgotten.
func BenchmarkForget(b *testing.B) {
	buckets := NewBuckets[int](Rate{PerSecond: 100, Burst: 10}, many)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		buckets.Take(i, 1)
	}
	b.ReportMetric(float64(len(buckets.of)), "keys")
}

// BenchmarkMemory reports how many bytes a key takes.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(bytesPerKey(), "B/key")
	}
}

func bytesPerKey() float64 {
	keys := make([]netip.Prefix, many)
	for i := range keys {
		keys[i] = nth(i)
	}
	buckets := NewBuckets[netip.Prefix](Rate{PerSecond: 1e-3, Burst: 10}, many)
	before := heapInUse()
	for _, key := range keys {
		buckets.Take(key, 1)
	}
	per := float64(heapInUse()-before) / many
	runtime.KeepAlive(buckets)
	runtime.KeepAlive(keys)
	return per
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkSlots(b *testing.B) {
	s := NewSlots[netip.Prefix](0, 100)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if key := nth(i % 1000); s.Take(key) {
				s.Release(key)
			}
		}
	})
}

func BenchmarkClient(b *testing.B) {
	p, _ := ParseProxies([]string{"10.0.0.0/8", "fd00::/8"})
	for name, header := range map[string]http.Header{
		"direct":        {},
		"xForwardedFor": {"X-Forwarded-For": {"203.0.113.9, 10.1.1.1"}},
		"forwarded":     {"Forwarded": {`for="[2001:db8::17]:4711";proto=https, for=10.1.1.1`}},
	} {
		b.Run(name, func(b *testing.B) {
			r := &http.Request{RemoteAddr: "10.0.0.1:1234", Header: header}
			b.ReportAllocs()
			for b.Loop() {
				p.Client(r)
			}
		})
	}
}
