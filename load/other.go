//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "load: missing: Linux, for what it measures with and for clients that go dark")
	os.Exit(1)
}
