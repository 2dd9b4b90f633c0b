//go:build !windows

package bolt

import (
	"errors"
	"syscall"
)

// quota reports whether a user's share of the disk is used up.
func quota(err error) bool { return errors.Is(err, syscall.EDQUOT) }
