package conformance

import "testing"

// TryTransport runs one clause and returns how it failed; applies is false if
// the clause isn't for this transport.
func TryTransport(t *testing.T, id string, tr Transport) (failures []string, applies bool) {
	for _, c := range transportClauses {
		if c.id == id {
			if c.notFor(tr) != "" {
				return nil, false
			}
			return c.try(t, tr), true
		}
	}
	t.Fatalf("there is no clause %s", id)
	return nil, false
}

// TransportClauses are the ids of all clauses.
func TransportClauses() []string {
	var ids []string
	for _, c := range transportClauses {
		ids = append(ids, c.id)
	}
	return ids
}
