package server

import (
	"bytes"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// A memoryLimit is how much memory the process may take, and who says so.
type memoryLimit struct {
	bytes  int64 // 0: nobody says
	source string
	// collected: the runtime knows of it, and so collects in time by itself.
	collected bool
	cgroup    *cgroup // that says so, or nil
}

// cgroupShare is how much of a cgroup's limit is used: who reaches the limit
// itself is killed.
const cgroupShare = .9

// findMemoryLimit returns the limit for Options.MemoryLimit. root is where the
// system's files are: "/".
func findMemoryLimit(option int64, root string) memoryLimit {
	runtimeLimit := debug.SetMemoryLimit(-1) // only asks
	var l memoryLimit
	switch {
	case option < 0:
		return l
	case option > 0:
		l = memoryLimit{bytes: option, source: "Options.MemoryLimit"}
	case runtimeLimit != math.MaxInt64:
		l = memoryLimit{bytes: max(1, runtimeLimit), source: "GOMEMLIMIT"}
	default:
		if c := findCgroup(root); c != nil {
			l = memoryLimit{bytes: max(1, int64(cgroupShare*float64(c.limit))), source: "cgroup", cgroup: c}
		}
	}
	l.collected = runtimeLimit <= l.bytes
	return l
}

// A cgroup is the one that limits the memory of this process most closely: its
// own, or one of those around it.
type cgroup struct {
	limit int64
	dir   string
	files *cgroupFiles
}

// cgroupFiles are the names that a version of cgroups has for the same things.
type cgroupFiles struct {
	mount, limit, usage, inactive string
}

var (
	cgroup1 = cgroupFiles{"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
	cgroup2 = cgroupFiles{"sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"}
)

// unlimited is above what a limit is no limit: version 1 says it with a number
// near the largest.
const unlimited = 1 << 60

// findCgroup returns the cgroup that limits this process, or nil.
func findCgroup(root string) *cgroup {
	text, err := os.ReadFile(path.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	files, at := memoryCgroup(string(text))
	if files == nil {
		return nil
	}
	var found *cgroup
	mount := path.Join(root, files.mount)
	for at = path.Clean("/" + at); ; at = path.Dir(at) {
		// In a container the path may be one of the host's, which is not to be seen
		// here; then the top is the container's own.
		dir := path.Join(mount, at)
		if n, ok := readNumber(path.Join(dir, files.limit)); ok && n < unlimited && (found == nil || n < found.limit) {
			found = &cgroup{limit: n, dir: dir, files: files}
		}
		if at == "/" {
			return found
		}
	}
}

// memoryCgroup returns from /proc/self/cgroup where the process is among those
// that count memory. Each line is number:controllers:path; version 2 has one
// without controllers. Where both are, memory is counted by version 1 if that
// names it.
func memoryCgroup(text string) (files *cgroupFiles, at string) {
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			switch {
			case controller == "memory":
				return &cgroup1, parts[2]
			case controller == "" && parts[0] == "0":
				files, at = &cgroup2, parts[2]
			}
		}
	}
	return files, at
}

// used returns how much of the limit is used. Pages of files that nobody looked
// at lately are not: the kernel drops them before it kills anybody.
func (c *cgroup) used() (bytes int64, ok bool) {
	n, ok := readNumber(path.Join(c.dir, c.files.usage))
	if !ok {
		return 0, false
	}
	stat, err := os.ReadFile(path.Join(c.dir, "memory.stat"))
	if err != nil {
		return n, true
	}
	for line := range strings.Lines(string(stat)) {
		if value, found := strings.CutPrefix(line, c.files.inactive+" "); found {
			inactive, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return max(0, n-inactive), true
		}
	}
	return n, true
}

// readNumber reads a file of one number. "max" is none.
func readNumber(file string) (int64, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	return n, err == nil && n >= 0
}

// logShare is which part of the limit the log that New makes may hold: one of so
// many. Of small events it takes twice what it counts, and garbage as much again.
const logShare = 4

// logBytes is eventlog.MemoryOptions.MaxBytes of that log; 0: its default.
func (l *memoryLimit) logBytes() int64 {
	if l.bytes == 0 {
		return 0
	}
	return min(256<<20, max(1, l.bytes/logShare))
}
