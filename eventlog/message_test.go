package eventlog

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestMessageCheck(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, test := range map[string]struct {
		message Message
		field   string // empty: it is taken
	}{
		"JSON":                 {Message{Data: []byte(`{"a":[1,null]}`)}, ""},
		"JSON with a type":     {Message{Type: "said", Data: []byte(`1`)}, ""},
		"text":                 {Message{Kind: Text, Data: []byte("a\r\n\x00é")}, ""},
		"no text":              {Message{Kind: Text}, ""},
		"binary":               {Message{Kind: Binary, Data: []byte{0xff, 0}}, ""},
		"all at their bounds":  {Message{Kind: Text, Data: []byte(long(100)), Type: long(MaxType), Key: long(MaxKey), Tags: slices.Repeat([]string{long(MaxTag)}, MaxTags)}, ""},
		"no JSON":              {Message{}, "data"},
		"half JSON":            {Message{Data: []byte(`{"a"`)}, "data"},
		"two JSONs":            {Message{Data: []byte(`1 2`)}, "data"},
		"JSON not UTF-8":       {Message{Data: []byte("\"\xff\"")}, "data"},
		"text not UTF-8":       {Message{Kind: Text, Data: []byte("\xff")}, "data"},
		"too much data":        {Message{Kind: Text, Data: []byte(long(101))}, "data"},
		"unknown kind":         {Message{Kind: 3}, "kind"},
		"long type":            {Message{Kind: Text, Type: long(MaxType + 1)}, "type"},
		"type of two lines":    {Message{Kind: Text, Type: "a\nb"}, "type"},
		"type with C1":         {Message{Kind: Text, Type: "a\u0085b"}, "type"},
		"type not UTF-8":       {Message{Kind: Text, Type: "\xff"}, "type"},
		"open":                 {Message{Kind: Text, Type: "open"}, "type"},
		"error":                {Message{Kind: Text, Type: "error"}, "type"},
		"reserved":             {Message{Kind: Text, Type: "throughline.x"}, "type"},
		"almost reserved":      {Message{Kind: Text, Type: "throughline"}, ""},
		"long key":             {Message{Kind: Text, Key: long(MaxKey + 1)}, "key"},
		"key with NUL":         {Message{Kind: Text, Key: "\x00"}, "key"},
		"many tags":            {Message{Kind: Text, Tags: make([]string, MaxTags+1)}, "tags"},
		"long tag":             {Message{Kind: Text, Tags: []string{long(MaxTag + 1)}}, "tags"},
		"tag with a line feed": {Message{Kind: Text, Tags: []string{"a\n"}}, "tags"},
	} {
		err := test.message.Check(100)
		var invalid *Invalid
		if errors.As(err, &invalid) != (test.field != "") || invalid != nil && invalid.Field != test.field {
			t.Errorf("%s: %v, not about %q", name, err, test.field)
		}
		if invalid != nil && invalid.TooLarge != (name == "too much data") {
			t.Errorf("%s: TooLarge is %v", name, invalid.TooLarge)
		}
	}
}

func FuzzMessageCheck(f *testing.F) {
	f.Add("", uint8(JSON), []byte("{}"), "", "")
	f.Add("said", uint8(Text), []byte("a\nb"), "key", "tag")
	f.Add("open", uint8(Binary), []byte{0xff}, "\x00", "\xff")
	f.Add("throughline.gap", uint8(9), []byte(nil), "", "\n")
	f.Fuzz(func(t *testing.T, typ string, kind uint8, data []byte, key, tag string) {
		m := Message{Type: typ, Kind: Kind(kind), Data: data, Key: key, Tags: []string{tag}}
		if m.Check(1000) != nil {
			return
		}
		// What is taken can be shown: no part of a line breaks it.
		for _, s := range []string{typ, key, tag} {
			if strings.ContainsAny(s, "\r\n\x00") || !utf8.ValidString(s) {
				t.Errorf("%q was taken", s)
			}
		}
		var value any
		if m.Kind == JSON && json.Unmarshal(data, &value) != nil || m.Kind != Binary && !utf8.Valid(data) || len(data) > 1000 {
			t.Errorf("%q was taken as %v", data, m.Kind)
		}
		c := m.Clone()
		if again := c.Check(1000); again != nil || c.Type == "" {
			t.Errorf("a copy isn't taken: %v", again)
		}
	})
}

// FuzzChannelCheck: what is taken for a channel can stand in a line, a header and
// a log, and is the name of no other.
func FuzzChannelCheck(f *testing.F) {
	f.Add("", "a")
	f.Add("tenant", "room:42")
	f.Add("a/b", strings.Repeat("é", 100))
	f.Add("\x00", "a\r\nid: x")
	f.Add("\xff", "a\u0085\u2028\ufeff")
	f.Fuzz(func(t *testing.T, namespace, name string) {
		err := Channel{Namespace: namespace, Name: name}.Check()
		control := func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }
		bad := strings.ContainsFunc(name+namespace, control) && !strings.Contains(name+namespace, "\ufffd")
		if fits := name != "" && len(name) <= 200 && len(namespace) <= 100 && utf8.ValidString(name) && utf8.ValidString(namespace); err == nil && (!fits || bad) {
			t.Errorf("%q of %q was taken", name, namespace)
		} else if err != nil && fits && !strings.ContainsFunc(name+namespace, unicode.IsControl) {
			t.Errorf("%q of %q: %v", name, namespace, err)
		}
		if err != nil && (len(err.Error()) > 200 || strings.ContainsFunc(err.Error(), control)) {
			t.Errorf("%q: %v", name, err)
		}
	})
}
