package main

import "syscall"

// apart keeps Ctrl-C from a child, which the program ends itself, and has the kernel
// end it if the program is killed.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
