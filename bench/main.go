package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

// What the first argument makes of a process.
const (
	roleTrial = "trial"
	roleDrain = "drain"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 1 {
		switch args[0] {
		case roleTrial:
			return serveTrial(ctx, os.Stdin, os.Stdout)
		case roleDrain:
			return serveDrain(os.Stdin, os.Stdout)
		}
	}
	if len(args) > 0 && args[0] == redisWord {
		return runRedis(ctx, args[1:])
	}
	o, err := parseSettings(args, os.Stderr)
	if err != nil {
		return err
	}
	if err := enoughFiles(o.Clients); err != nil {
		return err
	}
	before := load()
	results, err := rounds(ctx, o)
	if err != nil {
		return err
	}
	return report(os.Stdout, o, args, before, results)
}
