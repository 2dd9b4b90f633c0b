package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/store/bolt"
)

// damaged returns a file with 77 events in a channel and 3 in another, of which
// some have a bit that is not as it was; and what was in it.
func damaged(t *testing.T, flipped ...int) (path string, channels []eventlog.Channel, before []eventlog.RangePage) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "events.db")
	l, err := bolt.Open(path, forever)
	if err != nil {
		t.Fatal(err)
	}
	channels = []eventlog.Channel{{Name: "other"}, {Name: "room"}}
	add := func(ch eventlog.Channel, n int) (all []eventlog.Message) {
		for i := range n {
			all = append(all, eventlog.Message{Kind: eventlog.Text, Data: fmt.Appendf(nil, "<%s %d>%0200d", ch.Name, i+1, i)})
		}
		return all
	}
	for i, n := range []int{3, 77} {
		if _, _, err := l.Append(ctx, channels[i], eventlog.Batch{Messages: add(channels[i], n)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	before = held(t, path, channels)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range flipped {
		was := fmt.Sprintf("<room %d>", n)
		content = bytes.ReplaceAll(content, []byte(was), []byte("="+was[1:]))
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, channels, before
}

// TestExportOfDamage: an export of a damaged file ends with the last event before
// the damage, in a whole line, and without an end.
func TestExportOfDamage(t *testing.T) {
	path, _, _ := damaged(t, 45)
	lines, errs := call(t, 1, "", "export", path)
	if n := strings.Count(lines, `"event"`); n != 3+44 || !strings.HasSuffix(lines, "}\n") || strings.Contains(lines, `"end"`) {
		t.Errorf("%d events, and at the end %q", n, lines[max(len(lines)-50, 0):])
	}
	if !strings.Contains(errs, "channel room: event 45 is damaged") || !strings.Contains(errs, "-salvage") || strings.Contains(errs, "unavailable") {
		t.Errorf("it says %s", errs)
	}
}

// TestSalvage: what is exported of a damaged file can be imported, has its
// positions, and nothing that was not there; what is left out is said.
func TestSalvage(t *testing.T) {
	for name, c := range map[string]struct {
		flipped  []int
		from, to int // what is left
		says     []string
	}{
		"nothing":        {nil, 1, 77, nil},
		"in the middle":  {[]int{45}, 46, 77, []string{"left out 1 to 44, whole", "left out 45: is damaged"}},
		"at the start":   {[]int{1}, 2, 77, []string{"left out 1: "}},
		"at the end":     {[]int{76, 77}, 1, 75, []string{"left out 76 to 77: "}},
		"at both ends":   {[]int{1, 77}, 2, 76, []string{"left out 1: ", "left out 77: "}},
		"in many places": {[]int{10, 20, 21, 70}, 71, 77, []string{"left out 20 to 21: ", "left out 22 to 69, whole"}},
	} {
		t.Run(name, func(t *testing.T) {
			path, channels, before := damaged(t, c.flipped...)
			lines, errs := call(t, 0, "", "export", "-salvage", path)
			for _, says := range c.says {
				if !strings.Contains(errs, "channel room: "+says) {
					t.Errorf("it doesn't say %q: %s", says, errs)
				}
			}
			if c.says == nil && errs != "" {
				t.Errorf("it says %s", errs)
			}
			restored := filepath.Join(t.TempDir(), "restored.db")
			call(t, 0, lines, "import", restored)
			call(t, 0, "", "check", restored)
			after := held(t, restored, channels)
			if want, got := fmt.Sprint(before[0].Events), fmt.Sprint(after[0].Events); got != want {
				t.Errorf("the other channel has %v, not %v", got, want)
			}
			if want, got := fmt.Sprint(before[1].Events[c.from-1:c.to]), fmt.Sprint(after[1].Events); got != want {
				t.Errorf("there are %v, not %v", got, want)
			}
		})
	}
}

// TestSalvageNothing: of a channel of which nothing can be read its place is left,
// so clients that have seen all go on.
func TestSalvageNothing(t *testing.T) {
	var every []int
	for i := range 77 {
		every = append(every, i+1)
	}
	path, channels, before := damaged(t, every...)
	lines, _ := call(t, 0, "", "export", "-salvage", path)
	restored := filepath.Join(t.TempDir(), "restored.db")
	call(t, 0, lines, "import", restored)
	l, err := bolt.Open(restored, forever)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	head, err := l.Seek(ctx, channels[1], eventlog.Start{})
	if last := before[1].Events[76].At; head != last || err != nil {
		t.Errorf("its place is %v, error %v, not %v", head, err, last)
	}
}

// TestSalvageOfPages: a file cut at any page, or with any page overwritten, is
// salvaged into one that can be imported and has nothing that was not there, or is
// an error in words; a check says that something is wrong, and doesn't fall over.
func TestSalvageOfPages(t *testing.T) {
	path, channels, before := damaged(t)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, page := range before {
		for _, e := range page.Events {
			known[fmt.Sprint(e)] = true
		}
	}
	saved := 0
	spoil := map[string]func(at int) []byte{
		"cut":   func(at int) []byte { return content[:at] },
		"zeros": func(at int) []byte { return slices.Concat(content[:at], make([]byte, 4096), content[at+4096:]) },
		"ones": func(at int) []byte {
			return slices.Concat(content[:at], bytes.Repeat([]byte{255}, 4096), content[at+4096:])
		},
	}
	used := len(bytes.TrimRight(content, "\x00"))
	for name, spoil := range spoil {
		for at := 0; at < used; at += 4096 {
			bad := filepath.Join(t.TempDir(), "bad.db")
			if err := os.WriteFile(bad, spoil(at), 0o600); err != nil {
				t.Fatal(err)
			}
			var o, e bytes.Buffer
			run([]string{"check", bad}, nil, &o, &e)
			if strings.Contains(e.String(), "unavailable") || strings.Contains(e.String()+o.String(), "eventsdb check") {
				t.Errorf("%s at %d: check says %s%s", name, at, &o, &e)
			}
			o.Reset()
			if run([]string{"export", "-salvage", bad}, nil, &o, &e) != 0 {
				continue
			}
			restored := filepath.Join(t.TempDir(), "restored.db")
			call(t, 0, o.String(), "import", restored)
			for _, page := range held(t, restored, channels) {
				for _, e := range page.Events {
					if saved++; !known[fmt.Sprint(e)] {
						t.Errorf("%s at %d: %v was not there", name, at, e)
					}
				}
			}
		}
	}
	if saved < len(known) {
		t.Errorf("%d events were saved altogether", saved)
	}
}

// TestCheckSaysWhatIsWhole: of each channel that is damaged.
func TestCheckSaysWhatIsWhole(t *testing.T) {
	path, _, _ := damaged(t, 45, 50, 51)
	out, errs := call(t, 1, "", "check", path)
	for _, says := range []string{"channel room: 74 of its 77 events are whole", "45 can't be read", "50 to 51 can't be read"} {
		if !strings.Contains(out, says) {
			t.Errorf("it doesn't say %q: %s", says, out)
		}
	}
	if !strings.Contains(errs, ": 1 problem;") || strings.Contains(out+errs, "eventsdb check") {
		t.Errorf("it says %s%s", out, errs)
	}
}

// TestCompactRefusesDamage, and leaves the file as it is.
func TestCompactRefusesDamage(t *testing.T) {
	path, _, _ := damaged(t, 45)
	before, _ := os.ReadFile(path)
	out, errs := call(t, 1, "", "compact", path)
	if !strings.Contains(out, "45 can't be read") || !strings.Contains(errs, "not compacted") {
		t.Errorf("it says %s%s", out, errs)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, before) {
		t.Error("the file was changed")
	}
	l, err := bolt.Open(path, forever)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Compact(ctx); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("a log that is open is compacted: %v", err)
	}
}

// TestWords: errors are for people at a command line.
func TestWords(t *testing.T) {
	folder := t.TempDir()
	path, _, _ := damaged(t)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(folder, "open")
	l, err := bolt.Open(open, forever)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, c := range map[string]struct {
		content []byte
		says    string
	}{
		"empty": {[]byte{}, "it is empty"},
		"short": {content[:4096], "it was cut short: it has 4096 bytes of at least"},
		"words": {bytes.Repeat([]byte("words "), 5000), "it is no log"},
		"open":  {nil, "another process has it open"},
		"none":  {nil, "no such file"},
	} {
		file := filepath.Join(folder, name)
		if c.content != nil {
			if err := os.WriteFile(file, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, command := range []string{"check", "export", "compact"} {
			out, errs := call(t, 1, "", command, file)
			if !strings.Contains(out+errs, c.says) || strings.Contains(errs, "eventlog:") || strings.Contains(errs, "salvage") && name != "short" || strings.Contains(errs, "Options") {
				t.Errorf("%s of %s says %q", command, name, errs)
			}
		}
	}
}

// TestHelp: the commands and the flags are explained.
func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"-h"}, {"--help"}, {"export", "-h"}} {
		out, _ := call(t, 0, "", args...)
		for _, says := range []string{"check", "export [-salvage] FILE", "import", "compact", "left"} {
			if !strings.Contains(out, says) || strings.Contains(out, "//") {
				t.Errorf("%q doesn't say %q: %s", args, says, out)
			}
		}
	}
}
