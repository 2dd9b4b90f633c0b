package throughline_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityIsShown: what docs/security.md says is shown by tests that are
// there, in each row.
func TestSecurityIsShown(t *testing.T) {
	declared := map[string]bool{}
	for _, glob := range []string{"*_test.go", "*/*_test.go", "*/*/*_test.go", "*/*/*/*_test.go"} {
		files, _ := filepath.Glob(glob)
		for _, path := range files {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(text, -1) {
				declared[string(m[1])] = true
			}
		}
	}
	text, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	rows := 0
	for line := range strings.Lines(string(text)) {
		tests := named.FindAllStringSubmatch(line, -1)
		for _, m := range tests {
			if !declared[m[1]] {
				t.Errorf("docs/security.md names %s, which is not there", m[1])
			}
		}
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| asset") {
			if rows++; len(tests) == 0 {
				t.Errorf("docs/security.md: no test shows %s", line)
			}
		}
	}
	if rows < 20 {
		t.Errorf("docs/security.md has %d rows", rows)
	}
}
