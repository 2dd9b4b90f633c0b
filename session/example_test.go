package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

// A token says which session comes back, if the one who presents it is the one
// it was made for.
func Example() {
	keys, err := session.NewKeys([]session.Key{
		{ID: "2026-01", Secret: bytes.Repeat([]byte("x"), 32)}, // 32 bytes of crypto/rand, really
	}, 24*time.Hour)
	if err != nil {
		fmt.Println(err)
		return
	}
	ann := session.Identity{Namespace: "shop", Subject: "ann"}
	token := session.Token{Namespace: ann.Namespace, Subject: ann.Subject, Session: session.NewID()}
	text := keys.Sign(token, time.Now())

	again, err := keys.Verify(text, ann, time.Now())
	fmt.Println(again.Session == token.Session, err)

	_, err = keys.Verify(text, session.Identity{Namespace: "shop", Subject: "bob"}, time.Now())
	fmt.Println(errors.Is(err, session.ErrTokenForeign))
	// Output:
	// true <nil>
	// true
}

// The new key comes first, and signs. The old one verifies for as long as its
// tokens live; clients get new ones when half of that is over.
func ExampleNewKeys_rotation() {
	const lifetime = 24 * time.Hour
	january := session.Key{ID: "2026-01", Secret: bytes.Repeat([]byte("x"), 32)}
	february := session.Key{ID: "2026-02", Secret: bytes.Repeat([]byte("y"), 32)}
	before, _ := session.NewKeys([]session.Key{january}, lifetime)
	between, _ := session.NewKeys([]session.Key{february, january}, lifetime)
	after, _ := session.NewKeys([]session.Key{february}, lifetime)

	ann, issued := session.Identity{Subject: "ann"}, time.Now()
	text := before.Sign(session.Token{Subject: "ann", Session: "q3X"}, issued)

	now := issued.Add(13 * time.Hour)
	token, err := between.Verify(text, ann, now)
	fmt.Println(token.Session, err)
	if between.Renew(token, now) {
		text = between.Sign(token, now)
	}
	token, err = after.Verify(text, ann, now.Add(12*time.Hour))
	fmt.Println(token.Session, err)
	fmt.Println(january) // secrets are not printed
	// Output:
	// q3X <nil>
	// q3X <nil>
	// key 2026-01
}

// A node claims a lease for a session that lives, touches it while it does, and
// releases it when it has not seen it for a while.
func ExampleStore() {
	ctx := context.Background()
	var store session.Store = session.NewMemory(session.MemoryOptions{})
	defer store.Close()

	line := session.Held{ID: "q3X", Line: 3}
	_ = store.Claim(ctx, line, session.Lease{
		Subject: "ann", Info: []byte(`{"colour":"red"}`), Channels: []string{"room:42"}, For: 30 * time.Second,
	})
	if missing, err := store.Touch(ctx, []session.Held{line}); err != nil || len(missing) > 0 {
		fmt.Println("claim again:", missing, err)
	}
	members, total, _ := store.Present(ctx, eventlog.Channel{Name: "room:42"}, 100)
	for _, m := range members {
		fmt.Printf("%s of %d: %s %s\n", m.ID, total, m.Subject, m.Info)
	}

	ended, _ := store.Release(ctx, line, 10*time.Second)
	fmt.Println("silent for 10 s, and over:", ended)
	ended, _ = store.Release(ctx, line, 0)
	fmt.Println("said goodbye, and over:", ended)
	ended, _ = store.Release(ctx, line, 0)
	fmt.Println("over again:", ended)
	// Output:
	// q3X of 1: ann {"colour":"red"}
	// silent for 10 s, and over: false
	// said goodbye, and over: true
	// over again: false
}
