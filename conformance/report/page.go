package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"strings"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// contracts are where the suites' contracts are written, beside PROTOCOL.md.
var contracts = map[string]string{
	"transport": "https://pkg.go.dev/github.com/throughline/throughline/transport#Conn",
	"log":       "https://pkg.go.dev/github.com/throughline/throughline/eventlog#Log",
	"store":     "https://pkg.go.dev/github.com/throughline/throughline/session#Store",
}

// What the page's template shows.
type (
	pageData struct {
		*Report
		Suites   []pageSuite
		Failures []pageFailure
	}
	pageSuite struct {
		*Suite
		Contract string
		Clauses  int
		Columns  int
		Forms    bool
		Groups   []pageGroup
		Notes    []*note
	}
	pageGroup struct {
		Name, Sum string
		Failed    bool
		Clauses   []pageClause
	}
	pageClause struct {
		*Clause
		Link  string
		Cells []pageCell
	}
	// A pageCell is a result, over all columns that it is about.
	pageCell struct {
		Columns     int
		Class, Sign string
		Title       string
		Note        int    // 0: none
		Failure     string // the id of its text
	}
	pageFailure struct {
		ID, Title, Level, Sentence, Text string
	}
)

// page returns the report as one page that needs nothing else.
func (r *Report) page(protocol string) ([]byte, error) {
	d := pageData{Report: r}
	for _, s := range r.Suites {
		d.addSuite(s, protocol)
	}
	for _, o := range r.Others {
		d.Failures = append(d.Failures, pageFailure{Title: strings.TrimSpace(o.Package + " " + o.Test), Text: o.Text})
	}
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, d)
	return b.Bytes(), err
}

func (d *pageData) addSuite(s *Suite, protocol string) {
	notes, number := s.notes()
	p := pageSuite{Suite: s, Contract: contracts[s.Name], Notes: notes}
	if s.Name == "server" {
		p.Contract = protocol
	}
	for _, t := range s.Testees {
		p.Columns += len(t.columns())
		p.Forms = p.Forms || len(t.Forms) > 0
	}
	for _, g := range s.Groups {
		p.Clauses += len(g.Clauses)
		p.Groups = append(p.Groups, d.group(s, g, number, protocol))
	}
	d.Suites = append(d.Suites, p)
}

func (d *pageData) group(s *Suite, g *Group, number map[string]int, protocol string) pageGroup {
	p := pageGroup{Name: g.Name}
	passed, ran := 0, 0
	for _, c := range g.Clauses {
		clause := pageClause{Clause: c}
		if c.Protocol != "" {
			clause.Link = protocol + "#" + strings.ToLower(c.Protocol)
		}
		for _, t := range s.Testees {
			for _, cell := range c.cells(t, number) {
				if cell.Class == string(Fail) {
					cell.Failure = fmt.Sprintf("failure-%d", len(d.Failures)+1)
					d.Failures = append(d.Failures, pageFailure{cell.Failure, c.ID + " · " + cell.Title, c.Level, c.Text, cell.text})
				}
				clause.Cells = append(clause.Cells, cell.pageCell)
			}
		}
		for _, r := range c.Results {
			if r.Outcome == Pass || r.Outcome == Fail {
				ran++
			}
			if r.Outcome == Pass {
				passed++
			}
		}
		p.Clauses = append(p.Clauses, clause)
	}
	p.Sum, p.Failed = fmt.Sprintf("%d/%d", passed, ran), passed < ran
	return p
}

// A cellOf is a cell, and the text of its failure.
type cellOf struct {
	pageCell
	text string
}

// cells returns a clause's cells for a testee. What is about no form, or all,
// takes the place of all.
func (c *Clause) cells(t *Testee, number map[string]int) (cells []cellOf) {
	results := c.of(t.Name)
	if len(results) == 1 && (results[0].Form == "" || results[0].Form == once) {
		return []cellOf{newCell(results[0], len(t.columns()), number)}
	}
	for _, col := range t.columns() {
		cells = append(cells, newCell(c.in(col), 1, number))
	}
	return cells
}

func newCell(r *Result, columns int, number map[string]int) cellOf {
	if r == nil {
		return cellOf{pageCell: pageCell{Columns: columns, Class: "none", Title: "not about this form"}}
	}
	cell := cellOf{pageCell: pageCell{Columns: columns, Title: strings.TrimSpace(r.Testee + " " + r.Form), Note: number[r.why()]}, text: r.Text}
	switch r.Outcome {
	case Pass:
		cell.Class, cell.Sign = "pass", "✓"
	case Fail:
		cell.Class, cell.Sign = "fail", "✗"
	case NotRun:
		cell.Class, cell.Sign = "none", "not run"
	default:
		cell.Class, cell.Sign = "na", string(r.Outcome)
	}
	return cell
}
