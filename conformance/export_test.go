package conformance

import (
	"slices"
	"testing"
)

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

// TryServer runs one clause over the forms it is about, and returns how it
// failed over the first that it failed over; applies is false if the clause
// isn't for this server.
func TryServer(t *testing.T, id string, s Server) (failures []string, applies bool) {
	c := serverClauseOf(t, id)
	return c.tryOver(t, s, c.forms())
}

// GlanceServer runs it over one of its forms, by a number that may be any.
func GlanceServer(t *testing.T, id string, s Server, number uint32) (failures []string, applies bool) {
	c := serverClauseOf(t, id)
	forms := c.forms()
	i := int(number % uint32(len(forms))) //nolint:gosec // there are few
	return c.tryOver(t, s, forms[i:i+1])
}

func serverClauseOf(t *testing.T, id string) *serverClause {
	for _, c := range slices.Concat(serverClauses...) {
		if c.id == id {
			return &c
		}
	}
	t.Fatalf("there is no clause %s", id)
	return nil
}

func (c *serverClause) tryOver(t *testing.T, s Server, forms []form) (failures []string, applies bool) {
	if c.notFor(s) != "" {
		return nil, false
	}
	for _, f := range forms {
		if failures := c.try(t, s, f); len(failures) > 0 {
			return append(failures, "over "+f.name), true
		}
	}
	return nil, true
}
