package session

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 500, time.UTC)

// secret makes a secret of a letter.
func secret(letter string) []byte { return []byte(strings.Repeat(letter, MinSecret)) }

func newKeys(t testing.TB, lifetime time.Duration, keys ...Key) *Keys {
	t.Helper()
	k, err := NewKeys(keys, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var (
	ann      = Identity{Namespace: "shop", Subject: "ann"}
	annsPage = Token{Namespace: "shop", Subject: "ann", Session: "q3X"}
	keyA     = Key{ID: "2026-01", Secret: secret("a")}
	keyB     = Key{ID: "2026-02", Secret: secret("b")}
)

func TestTokenComesBack(t *testing.T) {
	k := newKeys(t, time.Hour, keyA)
	for name, want := range map[string]Token{
		"usual":   annsPage,
		"unknown": {Session: NewID()},
		"longest": {Namespace: strings.Repeat("n", 100), Subject: strings.Repeat("s", MaxSubject), Session: strings.Repeat("i", MaxID)},
	} {
		text := k.Sign(want, noon)
		want.Issued, want.Expires = noon.Truncate(time.Second), noon.Truncate(time.Second).Add(time.Hour)
		got, err := k.Verify(text, Identity{Namespace: want.Namespace, Subject: want.Subject, Claims: []int{1}}, noon)
		if err != nil || got != want {
			t.Errorf("%s: %+v came back as %+v, %v", name, want, got, err)
		}
		if len(text) > MaxToken || strings.Trim(text, keyIDAlphabet+".") != "" {
			t.Errorf("%s: %d bytes, or not fit for an address: %s", name, len(text), text)
		}
	}
}

// TestTokenText: the form and the derivation of keys are kept between
// releases, as a token outlives the node that signed it.
func TestTokenText(t *testing.T) {
	const want = "a2026-01.BHNob3ADYW5uA3EzWIDNvZUNoDg.nqMXFtjSQr4o4D6hlUX3Z5oBu8apWgpu-X4YO9qN_Nk"
	k := newKeys(t, time.Hour, keyA)
	if got := k.Sign(annsPage, noon); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if _, err := k.Verify(want, ann, noon); err != nil {
		t.Error(err)
	}
}

func TestTokenIsNotAnothers(t *testing.T) {
	k := newKeys(t, time.Hour, keyA)
	text := k.Sign(annsPage, noon)
	for _, who := range []Identity{
		{},
		{Namespace: "shop"},
		{Subject: "ann"},
		{Namespace: "shop", Subject: "bob"},
		{Namespace: "shop2", Subject: "ann"},
		{Namespace: "shopann"},
		{Namespace: "sho", Subject: "pann"},
	} {
		if got, err := k.Verify(text, who, noon); !errors.Is(err, ErrTokenForeign) || got != (Token{}) {
			t.Errorf("presented by %+v: %+v, %v", who, got, err)
		}
	}
}

func TestTokenExpires(t *testing.T) {
	k := newKeys(t, time.Hour, keyA)
	text := k.Sign(annsPage, noon)
	for after, want := range map[time.Duration]error{
		-24 * time.Hour: nil, 0: nil, time.Hour - time.Second: nil, // clocks differ
		time.Hour: ErrTokenExpired, 24 * time.Hour: ErrTokenExpired,
	} {
		if got, err := k.Verify(text, ann, noon.Add(after)); !errors.Is(err, want) || (got == Token{}) != (want != nil) {
			t.Errorf("after %v: %+v, %v", after, got, err)
		}
	}
	issued, _ := k.Verify(text, ann, noon)
	if _, err := k.Verify(text, ann, issued.Expires); !errors.Is(err, ErrTokenExpired) {
		t.Errorf("at the second it expires: %v", err)
	}
	for after, want := range map[time.Duration]bool{-time.Hour: false, 0: false, 29 * time.Minute: false, 31 * time.Minute: true, time.Hour: true} {
		if got := k.Renew(issued, noon.Add(after)); got != want {
			t.Errorf("after %v: to be renewed %v", after, got)
		}
	}
}

func TestTamperedTokens(t *testing.T) {
	k := newKeys(t, time.Hour, keyA)
	text := k.Sign(annsPage, noon)
	for i := range len(text) {
		for b := range 256 {
			if byte(b) == text[i] {
				continue
			}
			if got, err := k.Verify(text[:i]+string([]byte{byte(b)})+text[i+1:], ann, noon); err == nil || got != (Token{}) {
				t.Fatalf("byte %d of %s as byte %d: %+v, %v", i, text, b, got, err)
			}
		}
		if _, err := k.Verify(text[:i], ann, noon); err == nil {
			t.Errorf("the first %d bytes verify", i)
		}
		if _, err := k.Verify(text[:i]+"\n"+text[i:], ann, noon); err == nil {
			t.Errorf("a line feed before byte %d verifies", i)
		}
	}
}

func TestWhyTokensDontVerify(t *testing.T) {
	k := newKeys(t, time.Hour, keyA)
	text := k.Sign(annsPage, noon)
	for other, want := range map[string]error{
		"":                                  ErrTokenMalformed,
		"b" + text[1:]:                      ErrTokenVersion,
		"eyJhbGciOiJIUzI1NiJ9.e30.x":        ErrTokenVersion,
		"a":                                 ErrTokenMalformed,
		"a.":                                ErrTokenMalformed,
		"a" + keyA.ID:                       ErrTokenMalformed,
		"a" + keyA.ID + ".":                 ErrTokenMalformed,
		"a..":                               ErrTokenKey,
		"a2026-03" + text[8:]:               ErrTokenKey,
		"a" + keyA.ID + "..":                ErrTokenSignature,
		text + "A":                          ErrTokenSignature,
		text + ".":                          ErrTokenSignature,
		text + strings.Repeat("A", 2<<10):   ErrTokenMalformed,
		"b" + strings.Repeat("A", 2<<10):    ErrTokenMalformed, // length comes first
		text[:strings.LastIndex(text, ".")]: ErrTokenMalformed,
	} {
		if got, err := k.Verify(other, ann, noon); !errors.Is(err, want) || got != (Token{}) {
			t.Errorf("%.60s: %v, not %v", other, err, want)
		}
	}
	// What is right but for the bounds of its parts.
	for _, bad := range []Token{
		{},
		{Session: strings.Repeat("x", MaxID+1)},
		{Session: "\n"},
		{Session: "x", Namespace: "$x"},
		{Session: "x", Subject: strings.Repeat("x", MaxSubject+1)},
		{Session: "x", Subject: strings.Repeat("x", 3000)},
	} {
		_, err := k.Verify(k.Sign(bad, noon), Identity{Namespace: bad.Namespace, Subject: bad.Subject}, noon)
		if !errors.Is(err, ErrTokenMalformed) {
			t.Errorf("%.40v: %v", bad, err)
		}
	}
}

// TestPayloadsAreParsedWhole signs what no Sign would.
func TestPayloadsAreParsedWhole(t *testing.T) {
	k := newKeys(t, time.Hour, keyA)
	verify := func(payload string) error {
		text := "a" + keyA.ID + "." + payload
		_, err := k.Verify(text+"."+k.signs.sign(text), Identity{}, time.Unix(0, 0))
		return err
	}
	good := "\x00\x00\x01x\x00\x02"
	for i := range len(good) {
		if err := verify(base64.RawURLEncoding.EncodeToString([]byte(good[:i]))); !errors.Is(err, ErrTokenMalformed) {
			t.Errorf("%q: %v", good[:i], err)
		}
	}
	if err := verify(base64.RawURLEncoding.EncodeToString([]byte(good))); err != nil {
		t.Errorf("%q: %v", good, err)
	}
	for _, bad := range []string{good + "\x00", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + good, "\x00\x00\x01x\x80\x80"} {
		if err := verify(base64.RawURLEncoding.EncodeToString([]byte(bad))); !errors.Is(err, ErrTokenMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := verify("****"); !errors.Is(err, ErrTokenMalformed) {
		t.Errorf("no base64: %v", err)
	}
}

func TestKeysRotate(t *testing.T) {
	before, between, after := newKeys(t, time.Hour, keyA), newKeys(t, time.Hour, keyB, keyA), newKeys(t, time.Hour, keyB)
	old := before.Sign(annsPage, noon)
	kept, err := between.Verify(old, ann, noon)
	if err != nil {
		t.Fatal(err)
	}
	fresh := between.Sign(kept, noon)
	if got, err := after.Verify(fresh, ann, noon); err != nil || got.Session != annsPage.Session {
		t.Errorf("the new key's token is %+v, %v", got, err)
	}
	if _, err := after.Verify(old, ann, noon); !errors.Is(err, ErrTokenKey) {
		t.Errorf("a token of a key that is gone: %v", err)
	}
	swapped := newKeys(t, time.Hour, Key{ID: keyA.ID, Secret: keyB.Secret})
	if _, err := swapped.Verify(old, ann, noon); !errors.Is(err, ErrTokenSignature) {
		t.Errorf("a token of another key of that name: %v", err)
	}
}

func TestNewKeysRefuses(t *testing.T) {
	for problem, keys := range map[string][]Key{
		"no key":      nil,
		`id ""`:       {{Secret: secret("a")}},
		`id "a.b"`:    {{ID: "a.b", Secret: secret("a")}},
		`id "a b"`:    {keyA, {ID: "a b", Secret: secret("a")}},
		"64 char":     {{ID: strings.Repeat("x", 65), Secret: secret("a")}},
		"two keys":    {keyA, keyB, keyA},
		"31 bytes":    {{ID: "a", Secret: secret("a")[1:]}},
		"not at leas": {{ID: "a"}},
	} {
		k, err := NewKeys(keys, time.Hour)
		if k != nil || err == nil || !strings.Contains(err.Error(), problem) || strings.Contains(err.Error(), "aaaa") {
			t.Errorf("%s: %v", problem, err)
		}
	}
	if _, err := NewKeys([]Key{keyA}, time.Millisecond); err == nil || !strings.Contains(err.Error(), "lifetime") {
		t.Errorf("a short life: %v", err)
	}
	newKeys(t, time.Second, Key{ID: strings.Repeat("x", 64), Secret: secret("a")})
}

func TestSecretsAreNotPrinted(t *testing.T) {
	k := newKeys(t, time.Hour, keyA)
	mac := hmac.New(sha256.New, keyA.Secret)
	mac.Write([]byte(tokenLabel))
	derived := mac.Sum(nil)
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
		fmt.Fprintf(&out, verb+"\n", keyA)
		fmt.Fprintf(&out, verb+"\n", []any{&keyA, []Key{keyA}, struct{ Keys []Key }{[]Key{keyA}}, map[string]Key{"k": keyA}})
		fmt.Fprintf(&out, verb+"\n", []any{k, *k, struct{ keys Keys }{*k}})
	}
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("keys", "key", keyA, "all", []Key{keyA}, "keys", k, "options", struct{ Keys []Key }{[]Key{keyA}})
	}
	if err := json.NewEncoder(&out).Encode([]any{keyA, &keyA, k}); err != nil {
		t.Fatal(err)
	}
	for _, hidden := range [][]byte{keyA.Secret[:8], derived[:8]} {
		for _, verb := range []string{"%s", "%x", "%X", "%d", "%#v"} {
			shown := strings.Trim(fmt.Sprintf(verb, hidden), "[]{}byt")
			if strings.Contains(out.String(), shown) {
				t.Errorf("the secret is printed as %s", shown)
			}
		}
		if strings.Contains(out.String(), base64.StdEncoding.EncodeToString(hidden)[:10]) {
			t.Error("the secret is printed in base64")
		}
	}
	if !strings.Contains(out.String(), keyA.String()) {
		t.Errorf("keys are not recognised: %s", out.String())
	}
}

func FuzzToken(f *testing.F) {
	k := newKeys(f, time.Hour, keyA, keyB)
	old := newKeys(f, time.Hour, keyB)
	f.Add(k.Sign(annsPage, noon), "shop", "ann", "q3X", int64(1767355200))
	f.Add(old.Sign(Token{Session: "x"}, time.Unix(-1, 0)), "", "", "x", int64(-1))
	f.Add("a2026-01.AAABeAAC.", "$", "\n", "", int64(1<<62))
	f.Add("AAABeAAC", "shop", "", "x", int64(1)) // a payload
	f.Add("b2026-01..", "a\xff", strings.Repeat("s", MaxSubject+1), strings.Repeat("i", MaxID+1), int64(0))
	f.Fuzz(func(t *testing.T, text, namespace, subject, id string, seconds int64) {
		who := Identity{Namespace: namespace, Subject: subject}
		now := time.Unix(seconds, 0).UTC()
		// What verifies is what Sign writes for the same.
		if got, err := k.Verify(text, who, now); err == nil {
			if text != k.Sign(got, got.Issued) && text != old.Sign(got, got.Issued) {
				t.Errorf("%q verifies as %+v and was not signed", text, got)
			}
		} else if got != (Token{}) {
			t.Errorf("%q fails with %v and is %+v", text, err, got)
		}
		// What Sign writes verifies, if it is within its bounds.
		want := Token{Namespace: namespace, Subject: subject, Session: id, Issued: now, Expires: now.Add(time.Hour)}
		signed := k.Sign(Token{Namespace: namespace, Subject: subject, Session: id}, now)
		fit := who.Check() == nil && Held{Namespace: namespace, ID: id}.Check() == nil
		if got, err := k.Verify(signed, who, now); seconds < 1<<40 && seconds > -1<<40 && (err == nil) != fit || err == nil && got != want {
			t.Errorf("%+v came back as %+v, %v", want, got, err)
		}
		// And is the only text that does.
		if bytes.ContainsAny([]byte(text), "\r\n=") && strings.Trim(text, "\r\n=") == signed {
			if _, err := k.Verify(text, who, now); err == nil {
				t.Errorf("%q verifies", text)
			}
		}
		// A payload can't be taken apart in another way.
		if payload, err := parsePayload(text); err == nil && payload.Session == "" {
			t.Errorf("payload %q is of no session", text)
		}
	})
}
