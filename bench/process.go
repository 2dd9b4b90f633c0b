package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// child prepares this program once more, in another role. It is killed when
// ctx ends.
func child(ctx context.Context, role string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, role)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second
	return cmd, nil
}

// A drainProcess is the drain as its server sees it.
type drainProcess struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	orders  *json.Encoder
	answers *json.Decoder
}

// startDrain returns when all clients are connected.
func startDrain(ctx context.Context, p plan) (*drainProcess, error) {
	cmd, err := child(ctx, roleDrain)
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d := &drainProcess{cmd: cmd, in: in, orders: json.NewEncoder(in), answers: json.NewDecoder(out)}
	if _, err := d.ask(p); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

// ask tells the drain something and returns what it answers.
func (d *drainProcess) ask(what any) (answer, error) {
	if err := d.orders.Encode(what); err != nil {
		return answer{}, err
	}
	return d.hear()
}

func (d *drainProcess) hear() (a answer, err error) {
	if err := d.answers.Decode(&a); err != nil {
		return a, fmt.Errorf("the drain is silent: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// arm returns when the drain waits for a load.
func (d *drainProcess) arm(w watch) error {
	a, err := d.ask(w)
	if err == nil && !a.Armed {
		err = errors.New("the drain is not where it should be")
	}
	return err
}

// wait returns when the load is there, or the drain has given up.
func (d *drainProcess) wait() (tally, error) {
	a, err := d.hear()
	if err != nil {
		return tally{}, err
	}
	if a.Tally == nil {
		return tally{}, errors.New("the drain has counted nothing")
	}
	return *a.Tally, nil
}

// stop ends the process and waits for it.
func (d *drainProcess) stop() {
	_ = d.in.Close()
	_ = d.cmd.Wait() // how it ended tells nothing that was not told before
}
