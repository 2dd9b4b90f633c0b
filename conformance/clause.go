package conformance

import (
	"slices"
	"strings"
)

// A Clause is one sentence of a contract, and where it belongs.
type Clause struct {
	Suite string // "transport", "log", "store" or "server"
	// ID names its subtest and never changes: "T03_Payloads". Those of a server
	// begin with the number of what they prove in PROTOCOL.md:
	// "P6.3_OpenComesFirst".
	ID    string
	Group string // what it is about: "resume"
	Level string // "MUST" or "SHOULD", as in RFC 2119
	Text  string // the sentence, without its level
}

// Protocol returns the number of the clause of PROTOCOL.md that a clause proves:
// "P6.3"; "" if it proves another contract.
func (c Clause) Protocol() string {
	number, _, _ := strings.Cut(c.ID, "_")
	if c.Suite != "server" {
		return ""
	}
	return number
}

// Clauses returns all clauses of all suites, in the order in which they run.
func Clauses() []Clause {
	var all []Clause
	for _, c := range transportClauses {
		all = append(all, newClause("transport", c.id, c.group, c.text))
	}
	for _, c := range logClauses {
		all = append(all, newClause("log", c.id, c.group, c.text))
	}
	for _, c := range storeClauses {
		all = append(all, newClause("store", c.id, c.group, c.text))
	}
	for _, c := range slices.Concat(serverClauses...) {
		all = append(all, newClause("server", c.id, c.group, c.text))
	}
	return all
}

func newClause(suite, id, group, text string) Clause {
	level, text, _ := strings.Cut(text, ": ")
	return Clause{Suite: suite, ID: id, Group: group, Level: level, Text: text}
}
