package conformance

import "testing"

// GlanceTransport runs a clause that has to pass in less time: where lines are
// cut after each byte it leaves some out, by a number that may be any.
func GlanceTransport(t *testing.T, id string, tr Transport, number uint32) (failures []string, applies bool) {
	for _, c := range transportClauses {
		if c.id == id && c.notFor(tr) == "" {
			return c.tryWith(t, tr, 5+int(number%7)), true
		}
	}
	return nil, false
}
