//go:build unix

package redistest

import (
	"errors"
	"os"
	"syscall"
)

// terminate asks a process to end, also one that is paused.
func terminate(p *os.Process) error {
	return errors.Join(p.Signal(syscall.SIGCONT), p.Signal(syscall.SIGTERM))
}

func pause(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
