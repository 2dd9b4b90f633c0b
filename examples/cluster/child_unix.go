//go:build unix && !linux

package main

import "syscall"

// apart keeps Ctrl-C from a child, which the program ends itself.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
