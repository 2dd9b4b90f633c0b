package bolt

// quota reports whether a user's share of the disk is used up.
func quota(error) bool { return false }
