//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
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

// busy is how long the processors of this machine have worked, for whomever.
func busy() time.Duration {
	b, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(b), "\n")
	const idle, iowait, guest = 4, 5, 9 // of the fields of that line, after its name; guests are users, too
	var ticks int64
	for i, f := range strings.Fields(first) {
		if n, err := strconv.ParseInt(f, 10, 64); err == nil && i != idle && i != iowait && i < guest {
			ticks += n
		}
	}
	return time.Duration(ticks) * (time.Second / 100)
}

// A usage is what a process takes of its machine.
type usage struct {
	RSS        int64 // bytes
	PeakRSS    int64 // the highest that was seen since the last measure
	Own        int64 // the highest ever, of what is not of files
	Data       int64 // mapped for data, used or not
	Heap       int64 // bytes of live and dead objects
	Objects    int64
	Goroutines int
	Files      int
	CPU        time.Duration
	At         time.Duration // of the clock
	Sockets    int64         // bytes that TCP holds, on the whole machine
}

// measure tells what this process uses. If clean, it first gives back all that
// it can.
func measure(clean bool) usage {
	if clean {
		runtime.GC() // what finalizers and pools held goes in the second
		runtime.GC()
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{
		RSS: rss(), Own: own(), Data: status("VmData:"), Heap: int64(m.HeapAlloc), Objects: int64(m.HeapObjects),
		Goroutines: runtime.NumGoroutine(), Files: files(), CPU: cpu(), At: now(), Sockets: sockets(),
	}
}

// rss is how much memory this process has in RAM. smaps_rollup counts each page;
// what statm says is a sum that each processor adds to when it likes.
func rss() int64 {
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return statm()
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Rss:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return statm()
}

// own is the most memory that this process ever had in RAM of its own. Pages of
// its program count as files.
func own() int64 {
	return status("VmHWM:") - status("RssFile:")
}

// status is what proc_pid_status(5) tells in kB, in bytes.
func status(name string) int64 {
	b, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(b), "\n"+name)
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(f[0], 10, 64)
	return n << 10
}

// statm is rss, cheaper and less exact.
func statm() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 2 {
		return 0
	}
	n, _ := strconv.ParseInt(f[1], 10, 64)
	return n * int64(os.Getpagesize())
}

// files is how many this process has open.
func files() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(d) - 1 // that of the folder itself
}

// sockets is how much memory TCP holds on this machine, or 0 if it is not told.
func sockets() int64 {
	b, _ := os.ReadFile("/proc/net/sockstat")
	_, tcp, _ := bytes.Cut(b, []byte("TCP:"))
	_, mem, _ := bytes.Cut(tcp, []byte(" mem "))
	number, _, _ := bytes.Cut(mem, []byte("\n"))
	pages, _ := strconv.ParseInt(string(number), 10, 64)
	return pages * int64(os.Getpagesize())
}

// enoughFiles raises the number of files that a process may open, and tells what
// is missing if that does not do.
func enoughFiles(clients int) error {
	const others = 200
	need := uint64(clients + others)
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if l.Cur >= need {
		return nil
	}
	wanted := unix.Rlimit{Cur: need, Max: max(l.Max, need)} // only root may raise Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &wanted); err != nil {
		return fmt.Errorf("missing: %d open files for %d clients, and the hard limit is %d: raise it with ulimit -Hn, or ask for fewer with -clients", need, clients, l.Max)
	}
	return nil
}

// host tells where it was measured.
func host() string {
	s := fmt.Sprintf("%s, %s/%s, %d cores", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		s += ", kernel " + strings.TrimSpace(string(release))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		s += ", load average " + strings.Fields(string(b) + " ?")[0]
	}
	return s
}
