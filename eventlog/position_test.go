package eventlog

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestPositionText(t *testing.T) {
	for text, want := range map[string]Position{
		"a0.1":                         {0, 1},
		"a1.z":                         {1, 35},
		"a10.10":                       {36, 36},
		"a3w5e11264sgsf.3w5e11264sgsf": {math.MaxUint64, math.MaxUint64},
	} {
		got, err := ParsePosition(text)
		if err != nil || got != want || want.String() != text {
			t.Errorf("%q is %v, %v; %v is %q", text, got, err, want, want.String())
		}
	}
	for range 1000 {
		want := Position{rand.Uint64() >> rand.UintN(64), 1 + rand.Uint64()>>rand.UintN(64)}
		if got, err := ParsePosition(want.String()); got != want || err != nil {
			t.Errorf("%v came back as %v, %v", want, got, err)
		}
		if long := strings.Trim(want.String(), "abcdefghijklmnopqrstuvwxyz0123456789."); long != "" {
			t.Errorf("%v holds %q", want, long)
		}
	}
}

func TestPositionTextIsUnique(t *testing.T) {
	for _, text := range []string{
		"", "a", ".", "a.", "a1", "a1.", "a.1", "a1.0", "b1.1", "1.1", "a01.1", "a1.01", "aA.1", "a1.A", "a+1.1", "a-1.1",
		"a1.1.1", "a1.1 ", " a1.1", "a1_0.1", "a0x1.1", "a3w5e11264sgsg.1", "a1.3w5e11264sgsg", "a1.1\n",
		"a" + strings.Repeat("0", 100) + ".1",
	} {
		if p, err := ParsePosition(text); !errors.Is(err, ErrBadPosition) || p != (Position{}) {
			t.Errorf("%q is %v, %v", text, p, err)
		}
	}
}

func TestPositionInJSON(t *testing.T) {
	want := map[string]Position{"a": {7, 8}}
	text, err := json.Marshal(want)
	if err != nil || string(text) != `{"a":"a7.8"}` {
		t.Errorf("%s, %v", text, err)
	}
	var got map[string]Position
	if err := json.Unmarshal(text, &got); err != nil || got["a"] != want["a"] {
		t.Errorf("%v, %v", got, err)
	}
	if err := json.Unmarshal([]byte(`{"a":"a7.0"}`), &got); !errors.Is(err, ErrBadPosition) {
		t.Errorf("a bad position: %v", err)
	}
}

func FuzzParsePosition(f *testing.F) {
	for _, seed := range []string{"a0.1", "a1.z", "a3w5e11264sgsf.3w5e11264sgsf", "a01.1", "b1.1", "a1.0", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePosition(text)
		switch {
		case err != nil && p != (Position{}):
			t.Errorf("%q fails with %v and is %v", text, err, p)
		case err == nil && (p.String() != text || p.Mark == 0):
			t.Errorf("%q is %v", text, p)
		}
	})
}
