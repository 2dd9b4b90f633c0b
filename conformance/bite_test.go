package conformance

import (
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"strings"
	"sync"
	"testing"
)

var everyClause = flag.Bool("all", false, "run broken parts against all clauses of the groups that they have nothing to do with, not only one of each")

// A BrokenPart breaks a contract in one way. The suite has to notice it by the
// clauses that are about it, and by none that have nothing to do with it.
type BrokenPart struct {
	Name string // what it does wrong: "drops openings"
	// Fails are the ids of the clauses that must fail, those of a contract without
	// their names ("L01"). In parentheses: that may, as luck has it.
	Fails string
	// Try runs a clause against the part, and returns how it failed; applies is
	// false if the clause is not for such a part.
	Try func(t *testing.T, id string) (failures []string, applies bool)
	// Glance does so for a clause that has to pass, in less time and with a number
	// that is another for each part. Nil is Try.
	Glance func(t *testing.T, id string, number uint32) (failures []string, applies bool)
}

// Bite runs a suite's clauses against parts that they must catch: those listed
// have to fail. A group is related to a part if one of its clauses is listed. Of
// each other group a clause is run, with -all each clause, and has to pass. And
// each clause has to be listed by some part.
func Bite(t *testing.T, suite string, parts []BrokenPart) {
	listed := make(map[string]bool)
	names := make(map[string]bool)
	for _, p := range parts {
		if names[p.Name] {
			t.Errorf("two broken parts are named %q", p.Name)
		}
		names[p.Name] = true
		own, others := p.split(t, suite)
		for _, c := range own {
			listed[c.ID] = true
		}
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			p.bite(t, own, others)
			catches.count(suite, !t.Failed())
		})
	}
	for _, c := range clausesOf(suite) {
		if !listed[c.ID] {
			t.Errorf("no broken %s shows that %s can fail", suite, c.ID)
		}
	}
}

func clausesOf(suite string) (clauses []Clause) {
	for _, c := range Clauses() {
		if c.Suite == suite {
			clauses = append(clauses, c)
		}
	}
	return clauses
}

// split returns the clauses that a part lists, and by their groups those that it
// has nothing to do with.
func (p *BrokenPart) split(t *testing.T, suite string) (own []Clause, others map[string][]Clause) {
	others = make(map[string][]Clause)
	clauses := clausesOf(suite)
	for _, c := range clauses {
		others[c.Group] = append(others[c.Group], c)
	}
	for name := range strings.FieldsSeq(p.Fails) {
		sure := strings.Trim(name, "()")
		c, ok := clauseNamed(clauses, sure)
		if !ok {
			t.Errorf("%q lists %s, and there is no such clause", p.Name, name)
			continue
		}
		delete(others, c.Group)
		if sure == name {
			own = append(own, c)
		}
	}
	if len(own) == 0 {
		t.Errorf("%q lists no clause", p.Name)
	}
	return own, others
}

// clauseNamed finds a clause by its id, or by what comes before the name in it.
// A number of PROTOCOL.md is no id: several clauses may prove it.
func clauseNamed(clauses []Clause, id string) (Clause, bool) {
	for _, c := range clauses {
		if c.ID == id || c.Suite != "server" && strings.HasPrefix(c.ID, id+"_") {
			return c, true
		}
	}
	return Clause{}, false
}

func (p *BrokenPart) bite(t *testing.T, own []Clause, others map[string][]Clause) {
	for _, c := range own {
		switch failures, applies := p.Try(t, c.ID); {
		case !applies:
			t.Errorf("%s is not run against a %s that %s", c.ID, c.Suite, p.Name)
		case len(failures) == 0:
			t.Errorf("%s does not catch a %s that %s", c.ID, c.Suite, p.Name)
		default:
			t.Logf("%s: %q", c.ID, failures)
		}
	}
	for group, clauses := range others {
		for _, c := range p.inTurn(group, clauses) {
			failures, applies := p.glance(t, c.ID)
			if len(failures) > 0 {
				t.Errorf("%s (%s) fails for a %s that %s, which does not list it: %q", c.ID, group, c.Suite, p.Name, failures)
			}
			if applies && !*everyClause {
				break
			}
		}
	}
}

func (p *BrokenPart) glance(t *testing.T, id string) (failures []string, applies bool) {
	if p.Glance == nil {
		return p.Try(t, id)
	}
	return p.Glance(t, id, p.number(id))
}

// number is another for each part, and the same each time.
func (p *BrokenPart) number(of string) uint32 {
	h := fnv.New32()
	_, _ = h.Write([]byte(p.Name + "/" + of))
	return h.Sum32()
}

// inTurn returns the clauses of a group, beginning with another one for each
// part, and with the same each time.
func (p *BrokenPart) inTurn(group string, clauses []Clause) []Clause {
	first := int(p.number(group) % uint32(len(clauses))) //nolint:gosec // a group is small
	return append(clauses[first:len(clauses):len(clauses)], clauses[:first]...)
}

// catches counts the broken parts that ran.
var catches tally

type tally struct {
	mu          sync.Mutex
	ran, caught map[string]int // guarded by mu; by suite
}

func (y *tally) count(suite string, caught bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.ran == nil {
		y.ran, y.caught = make(map[string]int), make(map[string]int)
	}
	y.ran[suite]++
	if caught {
		y.caught[suite]++
	}
}

// String is "" if no broken part ran.
func (y *tally) String() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	var caught, ran int
	var each []string
	for _, suite := range []string{"transport", "log", "store", "server"} {
		caught += y.caught[suite]
		ran += y.ran[suite]
		each = append(each, fmt.Sprintf("%s %d", suite, y.caught[suite]))
	}
	if ran == 0 {
		return ""
	}
	return fmt.Sprintf("broken parts caught %d of %d (%s)", caught, ran, strings.Join(each, ", "))
}

// modelsSeed is one with which the random models catch all that list them.
const modelsSeed = 32

// TestMain says how many broken parts were caught.
func TestMain(m *testing.M) {
	modelSeed = func() uint64 { return modelsSeed }
	code := m.Run()
	if line := catches.String(); line != "" {
		fmt.Println(line)
	}
	os.Exit(code)
}
