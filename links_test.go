package throughline_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestNobodyLinksWhatIsNotAskedFor: a program that embeds the server, and imports
// no store, has none in it.
func TestNobodyLinksWhatIsNotAskedFor(t *testing.T) {
	bolt, redis := "go.etcd.io/bbolt", "github.com/redis/go-redis"
	for program, links := range map[string][]string{
		"./server":           {},
		"./examples/slow":    {},
		"./examples/chat":    {bolt},
		"./examples/cluster": {redis},
	} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", program).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, store := range []string{bolt, redis} {
			if got := strings.Contains(string(out), store); got != slices.Contains(links, store) {
				t.Errorf("%s links %s: %v", program, store, got)
			}
		}
	}
}
