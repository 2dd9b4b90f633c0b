//go:build !race

package model

const shallower = 0
