package throughline_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestNobodyLinksWhatIsNotAskedFor: a program that embeds the server, and imports
// no store, has none in it.
func TestNobodyLinksWhatIsNotAskedFor(t *testing.T) {
	for _, c := range []struct {
		program string
		links   bool
	}{{"./server", false}, {"./examples/slow", false}, {"./examples/chat", true}} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", c.program).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := strings.Contains(string(out), "go.etcd.io/bbolt"); got != c.links {
			t.Errorf("%s links bbolt: %v", c.program, got)
		}
	}
}
