package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds what a test waits for. It is long because a loaded machine is
// no fault; what has to be fast is measured where it matters.
const patience = 20 * time.Second

// A browser is the process of driver.mjs, with a Chromium of its own.
type browser struct {
	process *exec.Cmd
	in      io.WriteCloser

	mu      sync.Mutex
	last    int                     // guarded by mu
	waiting map[int]chan answer     // guarded by mu
	logs    map[string]func(string) // guarded by mu: by page
	over    chan struct{}           // closed when the driver's output ends
}

type answer struct {
	ID    int
	Value json.RawMessage
	Error string
	Page  string
	Log   string
}

func startBrowser(chromium string) (*browser, error) {
	b := &browser{
		process: exec.Command("node", "driver.mjs", chromium),
		waiting: map[int]chan answer{}, logs: map[string]func(string){}, over: make(chan struct{}),
	}
	b.process.Stderr = os.Stderr
	var err error
	if b.in, err = b.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := b.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	ready := make(chan answer, 1)
	b.waiting[0] = ready
	if err := b.process.Start(); err != nil {
		return nil, err
	}
	go b.read(out)
	_, err = b.wait(ready)
	return b, err
}

func (b *browser) read(out io.Reader) {
	defer close(b.over)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var a answer
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			continue
		}
		b.mu.Lock()
		if a.Page != "" {
			if log := b.logs[a.Page]; log != nil {
				log(a.Log)
			}
		} else if w := b.waiting[a.ID]; w != nil {
			delete(b.waiting, a.ID)
			w <- a
		}
		b.mu.Unlock()
	}
}

func (b *browser) wait(w chan answer) (json.RawMessage, error) {
	select {
	case a := <-w:
		if a.Error != "" {
			return nil, errors.New(a.Error)
		}
		return a.Value, nil
	case <-b.over:
		return nil, errors.New("the driver is gone")
	case <-time.After(patience):
		return nil, fmt.Errorf("no answer within %v", patience)
	}
}

// do has the driver do something and returns what it answers.
func (b *browser) do(verb, page string, members map[string]any) (json.RawMessage, error) {
	request := map[string]any{"verb": verb, "page": page}
	maps.Copy(request, members)
	w := make(chan answer, 1)
	b.mu.Lock()
	b.last++
	request["id"] = b.last
	b.waiting[b.last] = w
	line, err := json.Marshal(request)
	if err == nil {
		_, err = b.in.Write(append(line, '\n'))
	}
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return b.wait(w)
}

func (b *browser) stop() {
	_ = b.in.Close()
	select {
	case <-b.over:
	case <-time.After(5 * time.Second):
		_ = b.process.Process.Kill()
	}
	_ = b.process.Wait()
}

// A page is a tab with a storage of its own.
type page struct {
	*testing.T
	b    *browser
	name string
	mu   sync.Mutex
	said []string // guarded by mu: what it logged
}

// open opens a page at an address, until the test ends.
func open(t *testing.T, name, url string) *page {
	t.Helper()
	return openBy(t, "open", name, url)
}

// openBy opens a page by one of the driver's two verbs for it.
func openBy(t *testing.T, verb, name, url string) *page {
	t.Helper()
	p := &page{T: t, b: needBrowser(t), name: t.Name() + "/" + name}
	p.b.mu.Lock()
	p.b.logs[p.name] = p.note
	p.b.mu.Unlock()
	t.Cleanup(p.end)
	if _, err := p.b.do(verb, p.name, map[string]any{"url": url}); err != nil {
		t.Fatalf("%s: open %s: %v", p.name, url, err)
	}
	return p
}

func (p *page) note(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.said) < 50 {
		p.said = append(p.said, line)
	}
}

func (p *page) end() {
	if p.Failed() {
		states, _ := p.b.do("cdp", p.name, map[string]any{"method": "Runtime.evaluate", "params": map[string]any{
			"expression": "JSON.stringify(states)",
		}})
		p.Logf("%s was in: %s", p.name, states)
		p.mu.Lock()
		p.Logf("%s logged:\n\t%s", p.name, strings.Join(p.said, "\n\t"))
		p.mu.Unlock()
	}
	p.b.mu.Lock()
	delete(p.b.logs, p.name)
	p.b.mu.Unlock()
	_, _ = p.b.do("close", p.name, nil)
}

// cdp sends a command of the DevTools protocol.
func (p *page) cdp(method string, params map[string]any) json.RawMessage {
	p.Helper()
	v, err := p.b.do("cdp", p.name, map[string]any{"method": method, "params": params})
	if err != nil {
		p.Fatalf("%s: %s: %v", p.name, method, err)
	}
	return v
}

// crash kills the tab's process, as a device that runs out of memory does. No
// code of the page runs any more.
func (p *page) crash() {
	p.Helper()
	if _, err := p.b.do("crash", p.name, nil); err != nil {
		p.Fatalf("%s: %v", p.name, err)
	}
}

// eval evaluates an expression, waits for it if it is a promise, and stores its
// value in out, if that isn't nil.
func (p *page) eval(out any, expression string) {
	p.Helper()
	answer := p.cdp("Runtime.evaluate", map[string]any{
		"expression": expression, "awaitPromise": true, "returnByValue": true,
	})
	var v struct {
		Result struct {
			Value       json.RawMessage
			Description string
		}
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	if err := json.Unmarshal(answer, &v); err != nil {
		p.Fatal(err)
	}
	if e := v.ExceptionDetails; e != nil {
		p.Fatalf("%s: %.200s: %s %s", p.name, expression, e.Text, e.Exception.Description)
	}
	if out != nil && v.Result.Value != nil {
		if err := json.Unmarshal(v.Result.Value, out); err != nil {
			p.Fatalf("%s: %.200s: %v in %.200s", p.name, expression, err, v.Result.Value)
		}
	}
}

// call calls a function of the page.
func (p *page) call(out any, function string, args ...any) {
	p.Helper()
	var list []string
	for _, a := range args {
		text, err := json.Marshal(a)
		if err != nil {
			p.Fatal(err)
		}
		list = append(list, string(text))
	}
	p.eval(out, function+"("+strings.Join(list, ", ")+")")
}

// until waits until a condition holds in the page.
func (p *page) until(condition string, args ...any) {
	p.Helper()
	p.eval(nil, fmt.Sprintf("until(() => ("+condition+"))", args...))
}

// becomes waits until an expression has a value. Unlike until it asks from
// outside, and so also a page that moves or whose timers stand still.
func (p *page) becomes(expression string, value any) {
	p.Helper()
	want, err := json.Marshal(value)
	if err != nil {
		p.Fatal(err)
	}
	var got struct {
		Result struct{ Value json.RawMessage }
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		answer, err := p.b.do("cdp", p.name, map[string]any{"method": "Runtime.evaluate", "params": map[string]any{
			"expression": expression, "returnByValue": true,
		}})
		if err == nil && json.Unmarshal(answer, &got) == nil && string(got.Result.Value) == string(want) {
			return
		}
	}
	p.Fatalf("%s: %s is %s, never %s", p.name, expression, got.Result.Value, want)
}
