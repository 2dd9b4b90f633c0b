// Command report shows what conformance suites found, clause by clause. It reads
// the output of go test -json:
//
//	go test -json ./mytransport | go run github.com/throughline/throughline/conformance/report -html report.html
//
// It prints a matrix of who was tested and the groups of clauses, with each clause
// of a group in which one failed. It exits with 1 if a clause that is a MUST
// failed, or a test that is no clause, or if no clause ran.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	jsonFile := flag.String("json", "", "write the results as JSON into this `file`")
	htmlFile := flag.String("html", "", "write a page into this `file`")
	protocol := flag.String("protocol", "https://github.com/throughline/throughline/blob/main/PROTOCOL.md", "`address` of PROTOCOL.md, for the page's links")
	flag.Parse()
	passed, err := run(os.Stdin, os.Stdout, *jsonFile, *htmlFile, *protocol)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, jsonFile, htmlFile, protocol string) (passed bool, err error) {
	heard, err := listen(in)
	if err != nil {
		return false, err
	}
	r := newReport(heard)
	if err := r.print(out); err != nil {
		return false, err
	}
	if jsonFile != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return false, err
		}
		if err := os.WriteFile(jsonFile, append(text, '\n'), 0o644); err != nil { //nolint:gosec // for everybody to read
			return false, err
		}
	}
	if htmlFile != "" {
		page, err := r.page(protocol)
		if err != nil {
			return false, err
		}
		if err := os.WriteFile(htmlFile, page, 0o644); err != nil { //nolint:gosec // for everybody to read
			return false, err
		}
	}
	return r.Passed, nil
}
