//go:build !windows

package bolt

import "os"

func syncDirectory(folder *os.File) error { return folder.Sync() }
