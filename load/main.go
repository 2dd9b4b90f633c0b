//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
)

// What the first argument makes of a process.
const (
	roleServer = "server"
	roleFleet  = "clients"
	roleBad    = "bad-clients"
	roleChurn  = "churning-clients"
	roleSlow   = "slow-clients"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 1 && slices.Contains([]string{roleServer, roleFleet, roleBad, roleChurn, roleSlow}, args[0]) {
		stepBack(args[0])
		switch args[0] {
		case roleServer:
			return serveRole(ctx, os.Stdin, os.Stdout)
		case roleFleet:
			return fleetRole(ctx, os.Stdin, os.Stdout)
		case roleSlow:
			return slowRole(ctx, os.Stdin, os.Stdout)
		default:
			return badRole(ctx, os.Stdin, os.Stdout)
		}
	}
	s, err := parseSettings(args, os.Stderr)
	if err != nil {
		return err
	}
	if err := enoughFiles(max(s.Idle, s.Storm, s.Resume, 2*s.Clients, s.Slow.Clients)); err != nil {
		return err
	}
	t := &trials{settings: s, out: os.Stdout}
	t.say("", "%s", host())
	if !realtime() {
		t.say("", "without leave to schedule in real time (chrt): what else this machine does shows in the delays")
	}
	for _, name := range s.Only {
		if err := t.one(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return t.result()
}
