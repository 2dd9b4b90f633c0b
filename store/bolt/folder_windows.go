package bolt

import "os"

// syncDirectory does nothing: Windows keeps names without being asked, and
// refuses.
func syncDirectory(*os.File) error { return nil }
