package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/throughline/throughline/conformance"
)

// A Report says of each clause how it went for each testee. It is what -json
// writes.
type Report struct {
	Time   time.Time `json:"time"`   // of the last test
	Passed bool      `json:"passed"` // a clause ran, no MUST failed, and nothing else did
	Counts Counts    `json:"counts"`
	Said   []string  `json:"said"` // what tests say of the whole: "broken parts caught …"
	Suites []*Suite  `json:"suites"`
	Others []Other   `json:"others"` // what failed and is no clause
}

// Counts are of results: a clause counts once for each testee and form.
type Counts struct {
	Passed        int `json:"passed"`
	FailedMusts   int `json:"failedMusts"`
	FailedShoulds int `json:"failedShoulds"`
	NotApplicable int `json:"notApplicable"` // and skipped
	NotRun        int `json:"notRun"`
}

// A Suite is the clauses of a contract, for who was held to it.
type Suite struct {
	Name    string    `json:"name"` // "transport", "log", "store" or "server"
	Testees []*Testee `json:"testees"`
	Groups  []*Group  `json:"groups"`
}

// A Testee is what one call of the suite was about.
type Testee struct {
	Name    string   `json:"name"` // "sse plain"
	Package string   `json:"package"`
	Forms   []string `json:"forms"` // of reading; empty if the suite knows none
}

// A Group is the clauses about one subject.
type Group struct {
	Name    string    `json:"name"`
	Clauses []*Clause `json:"clauses"`
}

// A Clause is one sentence, and how it went.
type Clause struct {
	ID       string    `json:"id"`
	Level    string    `json:"level"` // "MUST" or "SHOULD"
	Text     string    `json:"text"`
	Protocol string    `json:"protocol,omitempty"` // its number in PROTOCOL.md
	Results  []*Result `json:"results"`            // in the order of testees and forms
}

// A Result is how a clause went for a testee, over a form.
type Result struct {
	Testee  string  `json:"testee"`
	Form    string  `json:"form,omitempty"` // "" if it is about all of them, or none
	Outcome Outcome `json:"outcome"`
	Text    string  `json:"text,omitempty"` // why it failed, or is not applicable
	Seconds float64 `json:"seconds"`
}

// An Outcome is how a clause went.
type Outcome string

// What may become of a clause.
const (
	Pass          Outcome = "pass"
	Fail          Outcome = "fail"
	NotApplicable Outcome = "n/a"
	Skipped       Outcome = "skipped"
	NotRun        Outcome = "not run"
)

// An Other is a failure of what is no clause: a test, or a whole package.
type Other struct {
	Package string `json:"package"`
	Test    string `json:"test,omitempty"`
	Text    string `json:"text"`
}

// once is the form of a clause that is about no form.
const once = "once"

// newReport puts what was heard in the order of the suites.
func newReport(h *hearing) *Report {
	r := &Report{Time: h.last, Said: h.said, Others: h.others()}
	testees := h.testees()
	for _, c := range conformance.Clauses() {
		if len(testees[c.Suite]) > 0 {
			r.add(c, testees[c.Suite], h)
		}
	}
	r.Passed = len(r.Suites) > 0 && r.Counts.FailedMusts == 0 && len(r.Others) == 0
	return r
}

func (r *Report) add(c conformance.Clause, testees []*heardTestee, h *hearing) {
	clause := &Clause{ID: c.ID, Level: c.Level, Text: c.Text, Protocol: c.Protocol(), Results: []*Result{}}
	for _, testee := range testees {
		results := h.results(testee, c)
		if len(results) == 0 {
			results = []*Result{{Testee: testee.Name, Outcome: NotRun}}
		}
		for _, result := range results {
			r.Counts.add(result.Outcome, c.Level)
		}
		clause.Results = append(clause.Results, results...)
	}
	s := r.suite(c.Suite, testees)
	i := slices.IndexFunc(s.Groups, func(g *Group) bool { return g.Name == c.Group })
	if i < 0 {
		i = len(s.Groups)
		s.Groups = append(s.Groups, &Group{Name: c.Group})
	}
	s.Groups[i].Clauses = append(s.Groups[i].Clauses, clause)
}

func (r *Report) suite(name string, testees []*heardTestee) *Suite {
	if i := slices.IndexFunc(r.Suites, func(s *Suite) bool { return s.Name == name }); i >= 0 {
		return r.Suites[i]
	}
	s := &Suite{Name: name}
	for _, testee := range testees {
		s.Testees = append(s.Testees, &testee.Testee)
	}
	r.Suites = append(r.Suites, s)
	return s
}

func (c *Counts) add(o Outcome, level string) {
	switch {
	case o == Pass:
		c.Passed++
	case o == Fail && level == "MUST":
		c.FailedMusts++
	case o == Fail:
		c.FailedShoulds++
	case o == NotRun:
		c.NotRun++
	default:
		c.NotApplicable++
	}
}

// of returns a clause's results for a testee.
func (c *Clause) of(testee string) (results []*Result) {
	for _, r := range c.Results {
		if r.Testee == testee {
			results = append(results, r)
		}
	}
	return results
}

// A column is a testee, over a form if it has any.
type column struct {
	testee *Testee
	form   string
}

func (t *Testee) columns() (columns []column) {
	for _, form := range t.Forms {
		columns = append(columns, column{t, form})
	}
	if len(columns) == 0 {
		columns = []column{{testee: t}}
	}
	return columns
}

// in returns a clause's result in a column; nil if the clause is not about its
// form.
func (c *Clause) in(col column) *Result {
	for _, r := range c.of(col.testee.Name) {
		if r.Form == "" || r.Form == col.form {
			return r
		}
	}
	return nil
}

// A note says what several results have in common: why they are not applicable.
type note struct {
	Number  int
	Text    string
	Clauses []string // their ids
}

// notes returns the reasons of a suite, and the number of each.
func (s *Suite) notes() (notes []*note, number map[string]int) {
	number = make(map[string]int)
	for _, g := range s.Groups {
		for _, c := range g.Clauses {
			for _, r := range c.Results {
				text := r.why()
				if text == "" {
					continue
				}
				if number[text] == 0 {
					number[text] = len(notes) + 1
					notes = append(notes, &note{Number: number[text], Text: text})
				}
				n := notes[number[text]-1]
				if !slices.Contains(n.Clauses, c.ID) {
					n.Clauses = append(n.Clauses, c.ID)
				}
			}
		}
	}
	return notes, number
}

// why returns the reason of what was left out; "" if nothing was.
func (r *Result) why() string {
	switch r.Outcome {
	case NotApplicable:
		return "n/a: " + cmp.Or(r.Text, "no reason is given")
	case Skipped:
		return "skipped: " + cmp.Or(r.Text, "no reason is given")
	}
	return ""
}
