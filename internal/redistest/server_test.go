package redistest

import (
	"errors"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

func TestRestart(t *testing.T) {
	s := Start(t, Options{AppendOnly: true, AppendFsync: "always", Password: "secret"})
	ctx, client := t.Context(), s.Client(t)
	has := func(want string) {
		t.Helper()
		if got, err := client.Get(ctx, "a").Result(); got != want || err != nil && !errors.Is(err, goredis.Nil) {
			t.Fatalf("%q, %v, not %q", got, err, want)
		}
	}
	if err := client.Set(ctx, "a", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := client.Get(ctx, "a").Err(); err == nil {
		t.Error("a server that was killed answers")
	}
	for _, keep := range []bool{true, true, false} {
		if err := s.Restart(keep); err != nil {
			t.Fatal(err)
		}
		has(map[bool]string{true: "1"}[keep])
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

func TestReplica(t *testing.T) {
	primary := Start(t, Options{MinReplicasToWrite: 1, MinReplicasMaxLag: 2})
	link := StartLink(t, primary.Addr())
	replica := Start(t, Options{ReplicaOf: link.Addr()})
	ctx, client, reader := t.Context(), primary.Client(t), replica.Client(t)
	until := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	writes := func() bool { return client.Set(ctx, "a", "1", 0).Err() == nil }
	until("a write with the replica there", writes)
	until("the replica has it", func() bool { return reader.Get(ctx, "a").Val() == "1" })
	link.Cut()
	until("no write without a replica", func() bool { return !writes() })
	link.Restore()
	until("a write when it is back", writes)
}

func TestLink(t *testing.T) {
	s := Start(t, Options{})
	link := StartLink(t, s.Addr())
	o := s.Options()
	o.Addr, o.MaxRetries, o.DialerRetries, o.ReadTimeout = link.Addr(), -1, 1, 200*time.Millisecond
	client := goredis.NewClient(o)
	defer client.Close()
	ping := func() (time.Duration, error) {
		began := time.Now()
		err := client.Ping(t.Context()).Err()
		return time.Since(began), err
	}
	passes := func(what string) {
		t.Helper()
		if _, err := ping(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	passes("at first")
	link.Delay(30 * time.Millisecond)
	if took, err := ping(); err != nil || took < 60*time.Millisecond {
		t.Errorf("delayed: %v, %v", took, err)
	}
	link.Restore()
	link.Hang()
	if took, err := ping(); err == nil || took < 200*time.Millisecond {
		t.Errorf("deaf: %v, %v", took, err)
	}
	link.Restore()
	passes("after it hung")
	link.Cut()
	if _, err := ping(); err == nil {
		t.Error("a link that was cut passes")
	}
	link.Restore()
	passes("after a cut")
}

func TestRetarget(t *testing.T) {
	servers := []*Server{Start(t, Options{}), Start(t, Options{})}
	link := StartLink(t, servers[0].Addr())
	o := servers[0].Options()
	o.Addr = link.Addr()
	client := goredis.NewClient(o)
	defer func() { _ = client.Close() }()
	for i, s := range servers {
		link.Retarget(s.Addr())
		if err := client.Set(t.Context(), "a", i, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Client(t).Get(t.Context(), "a").Int(); got != i || err != nil {
			t.Errorf("server %d has %d, %v", i, got, err)
		}
	}
}
