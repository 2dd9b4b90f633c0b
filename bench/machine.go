package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// now reads the monotonic clock, which all processes of a machine share.
func now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // there is no machine without it
	}
	return time.Duration(t.Nano())
}

// cpu is what this process has used of the processors, in it and in the kernel
// on its behalf.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it only fails for bad arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// allocated is how many bytes this process has allocated so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// enoughFiles reports with an error if a process can't open a file for each
// client. The runtime has raised the soft limit to the hard one already.
func enoughFiles(clients int) error {
	const others = 64
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if need := uint64(clients + others); l.Max < need {
		return fmt.Errorf("%d clients need %d open files, and the hard limit is %d (ulimit -Hn)", clients, need, l.Max)
	}
	return nil
}

// versions tells what was measured.
func versions() string {
	theirs := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/centrifugal/centrifuge" {
				theirs = d.Version
			}
		}
	}
	return fmt.Sprintf("%s, centrifuge %s, throughline as it lies in ../", runtime.Version(), theirs)
}

// host tells where it was measured.
func host() string {
	s := fmt.Sprintf("%s/%s, %d cores, GOMAXPROCS %d (server; the drain has 1)",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.GOMAXPROCS(0))
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		s += ", kernel " + strings.TrimSpace(string(release))
	}
	return s
}

// load is the load average, or "unknown".
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	if err != nil || len(f) == 0 {
		return "unknown"
	}
	return f[0]
}
