package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

// An example is one of the programs in examples, in a process of its own.
type example struct {
	*testing.T
	program string
	args    []string
	command *exec.Cmd
	url     string // of its page
}

// startExample builds and runs a program, as one does with go run, at an address
// that stays the same when it is started again.
func startExample(t *testing.T, name string, args ...string) *example {
	t.Helper()
	e := &example{T: t, program: filepath.Join(t.TempDir(), name)}
	if out, err := exec.Command("go", "build", "-o", e.program, "../examples/"+name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	e.args = append([]string{"-addr", freeAddress(t)}, args...)
	e.begin()
	t.Cleanup(e.end)
	return e
}

// begin returns when it says where its page is.
func (e *example) begin() {
	e.Helper()
	e.command = exec.Command(e.program, e.args...)
	e.command.Stderr = os.Stderr
	out, err := e.command.StdoutPipe()
	if err != nil {
		e.Fatal(err)
	}
	if err := e.command.Start(); err != nil {
		e.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if e.url = regexp.MustCompile(`http:\S+`).FindString(lines.Text()); e.url != "" {
			return
		}
	}
	e.Fatal("it does not say where it is")
}

// kill is kill -9.
func (e *example) kill() {
	_ = e.command.Process.Signal(syscall.SIGKILL)
	_ = e.command.Wait()
}

// end is Ctrl-C, on which it ends in good order.
func (e *example) end() {
	_ = e.command.Process.Signal(syscall.SIGTERM)
	if err := e.command.Wait(); err != nil {
		e.Errorf("it ended with %v", err)
	}
}
