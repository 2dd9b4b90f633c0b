package transport_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/transport"
)

// TestBombs: what a frame costs to read is bounded by its size, whatever it is
// made of; and what a body of a request costs doesn't grow with lists that
// nobody may send.
func TestBombs(t *testing.T) {
	fill := func(size int, begin, element, end string) string {
		n := (size - len(begin) - len(end)) / (len(element) + 1)
		return begin + strings.Repeat(element+",", n-1) + element + end
	}
	numbered := func(size int, begin, format, end string) string {
		var b strings.Builder
		b.WriteString(begin)
		for i := 0; b.Len() < size-40; i++ {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, format, i)
		}
		return b.String() + end
	}
	batch := `{"up":{"version":1},"publish":{"producer":"0123456789abcdef012345","frames":[`
	const small, large = 64 << 10, 256 << 10
	for name, c := range map[string]struct {
		text string
		most float64 // times the text
	}{
		"brackets":           {strings.Repeat("[", small), 8},
		"braces":             {strings.Repeat(`{"a":`, small/5), 8},
		"nested in a member": {`{"x":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + `}`, 32},
		"a long name":        {`{"` + strings.Repeat("x", large) + `":1}`, 8},
		"many members":       {numbered(small, "{", `"%d":1`, "}"), 3},
		"a long number":      {`{"hello":{"version":1,"line":` + strings.Repeat("9", small) + `}}`, 8},
		"an exponent":        {`{"hello":{"version":1e` + strings.Repeat("9", small) + `}}`, 8},
		"escapes":            {`{"credentials":"` + strings.Repeat(`\u0041`, small/6) + `"}`, 4},
		"empty names":        {fill(small, `{"unsubscribe":[`, `""`, `]}`), 3},
		"empty channels":     {fill(small, `{"subscribe":[`, `{}`, `]}`), 3},
		"nulls":              {fill(small, `{"subscribe":[`, `null`, `]}`), 12},
		"channels":           {numbered(small, `{"subscribe":[`, `{"channel":"%d"}`, `]}`), 34}, // 26 to 31: the map of names grows by the luck of its seed
		"members again":      {fill(small, `{`, `"subscribe":[{},{},{}]`, `}`), 16},
		"many empty lists":   {fill(large, `{"subscribe":[`, `{}`, `]}`), 3},
		"many frames":        {fill(large, batch, `{}`, `]}}`), 3},
		"many messages":      {fill(large, batch+`{"seq":1,"channel":"a","messages":[`, `{}`, `]}]}}`), 3},
		"lists of messages":  {fill(large, batch, `{"messages":[`+strings.Repeat(`{},`, 99)+`{}]}`, `]}}`), 4},
		"one large message":  {batch + `{"seq":1,"channel":"a","messages":[{"data":"` + strings.Repeat("x", large) + `"}]}]}}`, 5},
	} {
		var before, after runtime.MemStats
		began := time.Now()
		runtime.ReadMemStats(&before)
		var err error
		if strings.HasPrefix(c.text, `{"up"`) {
			_, err = transport.ParseUpstream([]byte(c.text))
		} else {
			_, err = transport.ParseUp([]byte(c.text))
		}
		runtime.ReadMemStats(&after)
		took, cost := time.Since(began), float64(after.TotalAlloc-before.TotalAlloc)
		if cost > c.most*float64(len(c.text))+8<<10 || took > 5*time.Second {
			t.Errorf("%s: %d bytes cost %.1f times that in %v", name, len(c.text), cost/float64(len(c.text)), took)
		}
		if err != nil {
			isRefusal(t, err)
		}
	}
}

// TestMembersNamedTwice count as they were named last, whole, as in JavaScript.
func TestMembersNamedTwice(t *testing.T) {
	for text, want := range map[string]string{
		`{"subscribe":[{"channel":"a","after":"last=5","paused":true}],"subscribe":[{"channel":"b"}]}`:                                         `{"subscribe":[{"channel":"b"}]}`,
		`{"subscribe":[{"channel":"a"}],"subscribe":null,"unsubscribe":["a"]}`:                                                                 `{"unsubscribe":["a"]}`,
		`{"call":{"id":1,"name":"a","key":"k","data":1},"call":{"id":2,"name":"b","data":2}}`:                                                  `{"call":{"id":2,"name":"b","data":2}}`,
		`{"call":{"id":1,"id":2,"name":"a","name":"b","data":{"x":1},"data":[3]}}`:                                                             `{"call":{"id":2,"name":"b","data":[3]}}`,
		`{"hello":{"version":2,"version":1,"channels":[{"channel":"a","paused":true}],"channels":[{"channel":"b"}]}}`:                          `{"hello":{"version":1,"channels":[{"channel":"b"}]}}`,
		`{"hello":{"version":1,"token":"x"},"hello":{"version":1}}`:                                                                            `{"hello":{"version":1}}`,
		`{"close":{"line":3},"close":{}}`:                                                                                                      `{"close":{}}`,
		`{"presence":[{"channel":"a","seen":"1"}],"presence":[{"channel":"b"}]}`:                                                               `{"presence":[{"channel":"b"}]}`,
		`{"publish":{"producer":"0123456789abcdef012345","frames":[]},"publish":{"frames":[{"seq":1,"channel":"a","messages":[{"data":1}]}]}}`: `refused`,
		`{"credentials":"a","credentials":"b"}`:                                                                                                `{"credentials":"b"}`,
		`{"subscribe":[{"channel":"a","channel":"b"}]}`:                                                                                        `{"subscribe":[{"channel":"b"}]}`,
	} {
		got, err := transport.ParseUp([]byte(text))
		if want == "refused" {
			if _, ok := errors.AsType[*transport.Refusal](err); !ok {
				t.Errorf("%s: %+v, %v", text, got, err)
			}
			continue
		}
		once, err2 := transport.ParseUp([]byte(want))
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(once)
		if err != nil || err2 != nil || string(a) != string(b) {
			t.Errorf("%s is read as %s, %v, not as %s, %v", text, a, err, b, err2)
		}
	}
}
