package server

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
)

// files makes a directory of files.
func files(t *testing.T, content map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range content {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestFindCgroup: in both versions, seen from outside and from within a container.
func TestFindCgroup(t *testing.T) {
	const self, v1, v2 = "proc/self/cgroup", "sys/fs/cgroup/memory", "sys/fs/cgroup"
	for name, c := range map[string]struct {
		files map[string]string
		limit int64 // 0: none
		used  int64 // -1: not known
	}{
		"no cgroups": {nil, 0, 0},
		"no limit": {map[string]string{
			self: "0::/a\n", v2 + "/a/memory.max": "max\n",
		}, 0, 0},
		"version 2": {map[string]string{
			self: "0::/a/b\n", v2 + "/a/b/memory.max": "1000\n", v2 + "/a/b/memory.current": "700\n",
			v2 + "/a/b/memory.stat": "anon 500\ninactive_anon 300\nactive_file 50\ninactive_file 150\nworkingset 1\n",
		}, 1000, 550},
		"the smallest on the way up": {map[string]string{
			self: "0::/a/b/c\n", v2 + "/a/b/c/memory.max": "3000\n", v2 + "/a/b/memory.max": "max\n", v2 + "/a/memory.max": "2000\n",
			v2 + "/a/memory.current": "900\n", v2 + "/a/b/c/memory.current": "100\n",
		}, 2000, 900},
		"the own one, where another is as small": {map[string]string{
			self: "0::/a/b\n", v2 + "/a/b/memory.max": "2000\n", v2 + "/a/memory.max": "2000\n",
			v2 + "/a/memory.current": "900\n", v2 + "/a/b/memory.current": "100\n",
		}, 2000, 100},
		"within a container of version 2": {map[string]string{
			self: "0::/\n", v2 + "/memory.max": "1000\n", v2 + "/memory.current": "600\n",
		}, 1000, 600},
		"the path is outside of what is seen": {map[string]string{
			self: "0::/../../x\n", v2 + "/memory.max": "1000\n",
		}, 1000, -1},
		"version 1": {map[string]string{
			self: "9:name=systemd:/x\n5:cpu,cpuacct:/y\n4:memory:/a\n", v1 + "/a/memory.limit_in_bytes": "1000\n", v1 + "/memory.limit_in_bytes": "9223372036854771712\n",
			v1 + "/a/memory.usage_in_bytes": "800\n", v1 + "/a/memory.stat": "inactive_file 5\ntotal_inactive_file 100\n",
		}, 1000, 700},
		"version 1, no limit": {map[string]string{
			self: "4:memory:/a\n0::/\n", v1 + "/a/memory.limit_in_bytes": "9223372036854771712\n", v1 + "/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0, 0},
		"version 1 within a container that sees the host's path": {map[string]string{
			self: "4:hugetlb,memory:/docker/0123\n0::/docker/0123\n", v1 + "/memory.limit_in_bytes": "1000\n", v1 + "/memory.usage_in_bytes": "300\n",
		}, 1000, 300},
		"a name with a colon": {map[string]string{
			self: "0::/a:b\n", v2 + "/a:b/memory.max": "1000\n", v2 + "/a:b/memory.current": "1\n",
		}, 1000, 1},
		"nonsense": {map[string]string{
			self: "\n::\n0\n0::/a\n", v2 + "/a/memory.max": "much\n", v2 + "/memory.max": "-5\n",
		}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			found := findCgroup(files(t, c.files))
			if found == nil {
				if c.limit != 0 {
					t.Errorf("none was found")
				}
				return
			}
			used, ok := found.used()
			if !ok {
				used = -1
			}
			if found.limit != c.limit || used != c.used {
				t.Errorf("the limit is %d, of which %d are used; want %d and %d", found.limit, used, c.limit, c.used)
			}
		})
	}
}

// TestFindMemoryLimit: who says it, in order.
func TestFindMemoryLimit(t *testing.T) {
	limited := files(t, map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n"})
	free := files(t, nil)
	for name, c := range map[string]struct {
		option, runtime int64
		root            string
		want            memoryLimit
	}{
		"nobody":                    {0, math.MaxInt64, free, memoryLimit{}},
		"the cgroup":                {0, math.MaxInt64, limited, memoryLimit{bytes: 900, source: "cgroup"}},
		"GOMEMLIMIT":                {0, 5 << 30, limited, memoryLimit{bytes: 5 << 30, source: "GOMEMLIMIT", collected: true}},
		"the option":                {6 << 30, 5 << 30, limited, memoryLimit{bytes: 6 << 30, source: "Options.MemoryLimit", collected: true}},
		"the option alone":          {6 << 30, math.MaxInt64, limited, memoryLimit{bytes: 6 << 30, source: "Options.MemoryLimit"}},
		"the option below":          {4 << 30, 5 << 30, limited, memoryLimit{bytes: 4 << 30, source: "Options.MemoryLimit"}},
		"none is wanted":            {-1, 5 << 30, limited, memoryLimit{}},
		"none is wanted, in cgroup": {-1, math.MaxInt64, limited, memoryLimit{}},
	} {
		t.Run(name, func(t *testing.T) {
			before := debug.SetMemoryLimit(c.runtime)
			defer debug.SetMemoryLimit(before)
			got := findMemoryLimit(c.option, c.root)
			if (got.cgroup != nil) != (c.want.source == "cgroup") {
				t.Errorf("the cgroup is %+v", got.cgroup)
			}
			got.cgroup = nil
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			if now := debug.SetMemoryLimit(-1); now != c.runtime {
				t.Errorf("the runtime's limit was set to %d", now)
			}
		})
	}
}

// TestMemorySightOfTheCgroup: what the kernel and others take there counts, and is
// asked for now and then.
func TestMemorySightOfTheCgroup(t *testing.T) {
	root := files(t, map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/memory.current": "620\n"})
	limit := memoryLimit{bytes: 900, cgroup: findCgroup(root)}
	r := runtimeMemory{mapped: 500, other: 50, live: 100, goal: 200, percent: 100, limit: math.MaxInt64}
	m := newMemoryMeter(limit, nil)
	if s := m.sight(&r); s.used != 370 || s.goal != 370 || s.mapped != 620 {
		t.Errorf("with 120 beside: %+v", s)
	}
	if err := os.Remove(filepath.Join(root, "sys/fs/cgroup/memory.current")); err != nil {
		t.Fatal(err)
	}
	m.asked = m.asked.Add(-lookSeldom)
	if s := m.sight(&r); s.used != 370 {
		t.Errorf("when it can't be asked, what it last said counts: %+v", s)
	}
}
