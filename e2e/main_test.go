package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
)

func TestMain(m *testing.M) {
	if address := os.Getenv(serverAddress); address != "" {
		fmt.Fprintln(os.Stderr, beServer(address))
		os.Exit(1)
	}
	code := m.Run()
	if started {
		if b, err := sharedBrowser(); err == nil {
			b.stop()
		}
	}
	os.Exit(code)
}

var started bool // set by sharedBrowser, and looked at when the tests are over

// One browser for all tests: each page has a context of its own.
var sharedBrowser = sync.OnceValues(func() (*browser, error) {
	started = true
	return startBrowser(chromiumPath())
})

func chromiumPath() string { return lookFor("chromium", "/usr/bin/chromium") }
func nginxPath() string    { return lookFor("nginx", "/usr/sbin/nginx") }
func haproxyPath() string  { return lookFor("haproxy", "/usr/sbin/haproxy") }

// lookFor finds a program, which may not be in the PATH of everybody.
func lookFor(name, usual string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	if _, err := os.Stat(usual); err == nil {
		return usual
	}
	return ""
}

// need ends a test that lacks what it runs with: on a developer's machine it is
// skipped, in CI that is a failure, because a test that isn't run proves nothing.
func need(t *testing.T, there bool, what, how string) {
	t.Helper()
	if there {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing: %s, install with: %s", what, how)
	}
	t.Skipf("missing: %s, install with: %s", what, how)
}

func needBrowser(t *testing.T) *browser {
	t.Helper()
	need(t, chromiumPath() != "", "chromium", "apt-get install chromium")
	_, err := exec.LookPath("node")
	need(t, err == nil, "node", "apt-get install nodejs")
	_, err = os.Stat("node_modules/playwright-core")
	need(t, err == nil, "playwright-core", "npm --prefix e2e ci")
	b, err := sharedBrowser()
	if err != nil {
		t.Fatalf("chromium does not start: %v", err)
	}
	return b
}
