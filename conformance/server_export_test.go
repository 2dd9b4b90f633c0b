package conformance

import "slices"

// ClausesInFakeTime are those of a server that are n/a in real time.
func ClausesInFakeTime() (n int) {
	for _, c := range slices.Concat(serverClauses...) {
		if c.clock == fake {
			n++
		}
	}
	return n
}
