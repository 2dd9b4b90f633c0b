package redis

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/redistest"
)

// TestRightsSuffice: a user with the rights of docs/deploying/users.acl may do all that a
// log does, in and outside of scripts, and has none that no script needs.
func TestRightsSuffice(t *testing.T) {
	rule := strings.Replace(configured(t, "users.acl")[0], "PASSWORD", "secret", 1)
	may := make(map[string]bool)
	for word := range strings.FieldsSeq(rule) {
		if command, ok := strings.CutPrefix(word, "+"); ok {
			may[command] = true
		}
	}
	scripts, err := filepath.Glob("lua/*.lua")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	for _, file := range scripts {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range regexp.MustCompile(`'([A-Z]{3,})'`).FindAllStringSubmatch(string(text), -1) {
			switch command := strings.ToLower(call[1]); command {
			case "count", "limit", "minid", "withscores": // words of commands
			default:
				if !may[command] {
					t.Errorf("%s calls %s, and docs/deploying/users.acl does not allow it", file, call[1])
				}
			}
		}
	}

	s := redistest.Start(t, redistest.Options{AppendOnly: true, AppendFsync: "always", Config: []string{rule}})
	redistest.Start(t, redistest.Options{ReplicaOf: s.Addr()})
	o := s.Options()
	o.Username, o.Password = "throughline", "secret"
	o.Protocol = 3
	client := goredis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	l, err := Open(t.Context(), client, Options{
		Durability:    func(eventlog.Channel) Durability { return Durability{Replicas: 1, Disk: true} },
		CheckInterval: 100 * time.Millisecond,
		Linger:        time.Millisecond,
		tests:         tests{sweep: 50 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	ch := eventlog.Channel{Name: "a"}
	rung := make(chan struct{}, 100)
	stop := l.Watch(ch, func() { rung <- struct{}{} })
	until(t, "an append is taken", func() bool { // when the replica is there
		_, _, err := l.Append(t.Context(), ch, eventlog.Batch{
			Producer: eventlog.Producer{ID: "test", Seq: 1}, Messages: []eventlog.Message{{Data: []byte("1")}},
		})
		return err == nil
	})
	<-rung
	at, err := l.Seek(t.Context(), ch, eventlog.Start{Earliest: true})
	if err != nil {
		t.Fatal(err)
	}
	if page, err := l.Read(t.Context(), ch, at, eventlog.Limit{}); err != nil || len(page.Events) != 1 {
		t.Errorf("%d events, %v", len(page.Events), err)
	}
	if page, err := l.Range(t.Context(), ch, eventlog.Range{Backwards: true}, eventlog.Limit{}); err != nil || len(page.Events) != 1 {
		t.Errorf("%d events backwards, %v", len(page.Events), err)
	}
	stop()
	if err := l.sweep(t.Context(), 0); err != nil {
		t.Error(err)
	}
	time.Sleep(200 * time.Millisecond) // for what is done in the background
	denied, err := s.Client(t).Do(t.Context(), "ACL", "LOG").Slice()
	if err != nil || len(denied) > 0 {
		t.Errorf("denied: %v, %v", denied, err)
	}
}
