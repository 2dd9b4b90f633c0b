//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// An order is what the first process asks of another, which does one thing at
// a time; a reply is what that says when it has done it.
type (
	order struct {
		Do   string
		With json.RawMessage
	}
	reply struct {
		Error string
		With  json.RawMessage
	}
)

// none is an order or a reply that says nothing more.
type none struct{}

// orders are what a role can be asked to do.
type orders map[string]func(ctx context.Context, with json.RawMessage) (any, error)

// on makes an order of a function of its own types.
func on[In, Out any](f func(context.Context, In) (Out, error)) func(context.Context, json.RawMessage) (any, error) {
	return func(ctx context.Context, with json.RawMessage) (any, error) {
		var in In
		if err := json.Unmarshal(with, &in); err != nil {
			return nil, err
		}
		return f(ctx, in)
	}
}

// obey does what comes in until there is nothing more: the first process has
// closed the pipe, or is gone.
func (o orders) obey(ctx context.Context, in io.Reader, out io.Writer) error {
	from, to := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var asked order
		if err := from.Decode(&asked); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		do, known := o[asked.Do]
		if !known {
			return fmt.Errorf("nobody here can do %q", asked.Do)
		}
		var r reply
		what, err := do(ctx, asked.With)
		if err == nil {
			r.With, err = json.Marshal(what)
		}
		if err != nil {
			r.Error = asked.Do + ": " + err.Error()
		}
		if err := to.Encode(r); err != nil {
			return err
		}
	}
}

// command is this program in a role. What is measured goes before all else that
// this machine does, if we may have it so, so that only what a server has to do
// shows. If not, bad clients at least take what the others leave: in life they
// have machines of their own.
func command(ctx context.Context, self, role string) *exec.Cmd {
	switch {
	case role == roleServer && realtime():
		return exec.CommandContext(ctx, "chrt", "--rr", "1", self, role)
	case role == roleFleet && realtime():
		// Before the server, as clients have machines of their own: its collector
		// of garbage takes all processors that are idle, and at the same priority
		// who is to read the clock would wait for it.
		return exec.CommandContext(ctx, "chrt", "--rr", "2", self, role)
	case (role == roleBad || role == roleSlow) && !realtime():
		return exec.CommandContext(ctx, "nice", "-n", leftovers, self, role)
	}
	return exec.CommandContext(ctx, self, role)
}

// leftovers is the niceness of those who take what others leave.
const leftovers = "19"

// realtime reports whether we may schedule processes in real time (sched(7)).
var realtime = sync.OnceValue(func() bool { return exec.Command("chrt", "--rr", "1", "true").Run() == nil })

// stepBack is niceness where sessions are scheduled as groups (the autogroup
// feature of sched(7)).
func stepBack(role string) {
	if (role == roleBad || role == roleSlow) && !realtime() {
		_ = os.WriteFile("/proc/self/autogroup", []byte(leftovers), 0) // where there is none, that of start does
	}
}

// A process is this program in another role.
type process struct {
	role string
	stop func() // ends it and waits
	kill func() // ends it as a crash does, and waits

	mu   sync.Mutex // one order at a time
	to   *json.Encoder
	from *json.Decoder
}

// start starts this program in another role. It ends with stop, with ctx, and
// with the first process.
func start(ctx context.Context, role string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := command(ctx, self, role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // where sessions are scheduled as groups, each role is one
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		cancel()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	stop := sync.OnceFunc(func() {
		_ = in.Close()
		cancel()       // nothing of it is worth waiting for
		_ = cmd.Wait() // it was killed
	})
	kill := func() {
		_ = cmd.Process.Kill()
		stop()
	}
	return &process{role: role, stop: stop, kill: kill, to: json.NewEncoder(in), from: json.NewDecoder(out)}, nil
}

// ask has a process do something, and returns what it says.
func ask[Out any](p *process, do string, with any) (out Out, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	body, err := json.Marshal(with)
	if err != nil {
		return out, err
	}
	if err := p.to.Encode(order{Do: do, With: body}); err != nil {
		return out, fmt.Errorf("the %s is gone: %w", p.role, err)
	}
	var r reply
	if err := p.from.Decode(&r); err != nil {
		return out, fmt.Errorf("the %s is silent: %w", p.role, err)
	}
	if r.Error != "" {
		return out, fmt.Errorf("the %s: %s", p.role, r.Error)
	}
	return out, json.Unmarshal(r.With, &out)
}

// tell is ask where nothing is to be heard.
func tell(p *process, do string, with any) error {
	_, err := ask[none](p, do, with)
	return err
}
