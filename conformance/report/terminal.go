package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// print writes the matrix for a terminal. A group of clauses is a line, and has
// its clauses below it if one of them failed.
func (r *Report) print(out io.Writer) error {
	var b bytes.Buffer
	for _, s := range r.Suites {
		s.print(&b)
	}
	r.printFailures(&b)
	for _, line := range r.Said {
		fmt.Fprintln(&b, line)
	}
	c := r.Counts
	fmt.Fprintf(&b, "%d passed, %d of MUST and %d of SHOULD failed, %d not applicable, %d not run\n",
		c.Passed, c.FailedMusts, c.FailedShoulds, c.NotApplicable, c.NotRun)
	if len(r.Suites) == 0 {
		fmt.Fprintln(&b, "no clause ran: is this the output of go test -json?")
	}
	_, err := out.Write(b.Bytes())
	return err
}

func (s *Suite) print(b *bytes.Buffer) {
	clauses := 0
	for _, g := range s.Groups {
		clauses += len(g.Clauses)
	}
	fmt.Fprintf(b, "%s: %d clauses\n", strings.ToUpper(s.Name), clauses)
	notes, number := s.notes()
	for _, columns := range s.bands() {
		if t := columns[0].testee; len(t.Forms) > 0 {
			fmt.Fprintf(b, " %s\n", t.Name)
		}
		table := s.rows(columns, number)
		head := heading(columns, table)
		for _, row := range append(head, table...) {
			row.print(b, widths(table, head))
		}
		fmt.Fprintln(b)
	}
	for _, n := range notes {
		fmt.Fprintf(b, "  [%d] %s (%s)\n", n.Number, n.Text, few(n.Clauses))
	}
	if len(notes) > 0 {
		fmt.Fprintln(b)
	}
}

// few names what a note is about, if that is short; the page has all of it.
func few(clauses []string) string {
	if len(clauses) > 3 {
		return fmt.Sprintf("%s and %d more", clauses[0], len(clauses)-1)
	}
	return strings.Join(clauses, ", ")
}

// bands divides a suite's columns into what fits side by side: a testee each, if
// they have forms.
func (s *Suite) bands() (bands [][]column) {
	const most = 9
	var band []column
	for _, t := range s.Testees {
		columns := t.columns()
		if len(band) > 0 && (len(band)+len(columns) > most || len(t.Forms) > 0) {
			bands = append(bands, band)
			band = nil
		}
		band = append(band, columns...)
	}
	return append(bands, band)
}

// A row is a line of a matrix.
type row struct {
	name  string
	cells []string
}

func (s *Suite) rows(columns []column, number map[string]int) (rows []row) {
	for _, g := range s.Groups {
		r := row{name: g.Name}
		failed := false
		for _, col := range columns {
			cell, bad := g.sum(col, number)
			r.cells = append(r.cells, cell)
			failed = failed || bad
		}
		rows = append(rows, r)
		if !failed {
			continue
		}
		for _, c := range g.Clauses {
			r := row{name: "  " + c.ID}
			if c.Level != "MUST" {
				r.name += " " + c.Level
			}
			for _, col := range columns {
				r.cells = append(r.cells, c.in(col).sign(number))
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// sum says how many clauses of a group passed in a column, of those that
// apply, and which notes are about the others.
func (g *Group) sum(col column, number map[string]int) (cell string, failed bool) {
	passed, ran, missing := 0, 0, 0
	var notes []int
	for _, c := range g.Clauses {
		switch r := c.in(col); {
		case r == nil:
		case r.why() != "":
			notes = append(notes, number[r.why()])
		case r.Outcome == NotRun:
			missing++
		default:
			ran++
			if r.Outcome == Pass {
				passed++
			}
		}
	}
	if ran > 0 {
		cell = fmt.Sprintf("%d/%d", passed, ran)
	}
	if missing > 0 {
		cell += fmt.Sprintf(" %d not run", missing)
	}
	slices.Sort(notes)
	for _, n := range slices.Compact(notes) {
		cell += fmt.Sprintf(" [%d]", n)
	}
	return strings.TrimSpace(cell), passed < ran
}

// sign shows a result in a terminal.
func (r *Result) sign(number map[string]int) string {
	switch {
	case r == nil:
		return ""
	case r.Outcome == Pass:
		return "✓"
	case r.Outcome == Fail:
		return "✗"
	case r.Outcome == NotRun:
		return "not run"
	}
	return fmt.Sprintf("%s [%d]", r.Outcome, number[r.why()])
}

// heading writes the names of columns as words one below the other.
func heading(columns []column, table []row) []row {
	var names [][]string
	lines := 0
	for i, col := range columns {
		words := fold(cmp.Or(col.form, col.testee.Name), max(8, columnWidth(table, i)))
		names = append(names, words)
		lines = max(lines, len(words))
	}
	rows := make([]row, lines)
	for i := range rows {
		for _, words := range names {
			word := ""
			if at := i - (lines - len(words)); at >= 0 {
				word = words[at]
			}
			rows[i].cells = append(rows[i].cells, word)
		}
	}
	return rows
}

// fold breaks a name into lines of so many characters, or a longer word.
func fold(name string, width int) (lines []string) {
	for word := range strings.FieldsSeq(name) {
		if last := len(lines) - 1; last >= 0 && len(lines[last])+1+len(word) <= width {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

func columnWidth(rows []row, i int) (width int) {
	for _, r := range rows {
		width = max(width, utf8.RuneCountInString(r.cells[i]))
	}
	return width
}

// widths returns how wide the names and each column are.
func widths(parts ...[]row) []int {
	rows := slices.Concat(parts...)
	all := []int{0}
	for _, r := range rows {
		all[0] = max(all[0], utf8.RuneCountInString(r.name))
	}
	if len(rows) > 0 {
		for i := range rows[0].cells {
			all = append(all, columnWidth(rows, i))
		}
	}
	return all
}

func (r row) print(b *bytes.Buffer, widths []int) {
	var line strings.Builder
	for i, text := range append([]string{r.name}, r.cells...) {
		line.WriteString("  " + text + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)))
	}
	fmt.Fprintln(b, strings.TrimRight(line.String(), " "))
}

func (r *Report) printFailures(b *bytes.Buffer) {
	for _, s := range r.Suites {
		for _, g := range s.Groups {
			for _, c := range g.Clauses {
				for _, result := range c.Results {
					if result.Outcome == Fail {
						fmt.Fprintf(b, "✗ %s %s: %s (%s: %s)\n", c.ID, c.Level, strings.TrimSpace(result.Testee+" "+result.Form), s.Name, g.Name)
						indent(b, result.Text)
					}
				}
			}
		}
	}
	for _, o := range r.Others {
		fmt.Fprintf(b, "✗ %s\n", strings.TrimSpace(o.Package+" "+o.Test))
		indent(b, o.Text)
	}
}

func indent(b *bytes.Buffer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(b, "    %s\n", strings.TrimRight(line, "\n"))
	}
}
