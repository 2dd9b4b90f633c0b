//go:build !linux

package main

import (
	"errors"
	"time"
)

// A poller exists on Linux only.
type poller struct{}

func newPoller() (*poller, error) { return nil, errors.New("the clients need epoll, and so Linux") }

func (*poller) add(int, int) error { return nil }

func (*poller) wait(time.Duration, []int) ([]int, error) { return nil, nil }
