package redistest

import "syscall"

// dieWithUs has the kernel end a server whose test was killed.
func dieWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
