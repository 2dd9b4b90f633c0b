//go:build race

package model

// The race detector makes a search ten times as slow, and it has one goroutine.
const shallower = 2
