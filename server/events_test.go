package server_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// An event is one kind of line in the log, as the code has it or docs/logs.md.
type event struct {
	level string
	keys  []string // of attributes
	where string
}

// loggers are the methods that write a line, with the place of the message among
// the arguments.
var loggers = map[string]int{
	"Debug": 0, "Info": 0, "Warn": 0, "Error": 0, "DebugContext": 1, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1,
	"Log": 2, "LogAttrs": 2, "Tell": 2, "NewRecord": 2,
}

// eventsInCode returns what all the library's files write, but for those
// messages that are handed on.
func eventsInCode(t *testing.T) map[string]event {
	events := map[string]event{}
	for _, folder := range []string{"core", "eventlog", "longpoll", "server", "session", "sse", "store/redis", "transport", "ws"} {
		err := filepath.WalkDir("../"+folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
					eventsOf(t, path, f, events)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return events
}

func eventsOf(t *testing.T, path string, f *ast.FuncDecl, events map[string]event) {
	ast.Inspect(f.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, at := logs(call)
		if at < 0 {
			return true
		}
		where := path + ": " + f.Name.Name
		text, ok := call.Args[at].(*ast.BasicLit)
		switch {
		case !ok && (f.Name.Name == "Tell" || f.Name.Name == "Handle"): // they hand it on
			return true
		case !ok:
			t.Errorf("%s: the message is no constant", where)
			return true
		}
		message, _ := strconv.Unquote(text.Value)
		if _, twice := events[message]; twice && message != "function panicked" {
			t.Errorf("%s: %q is written elsewhere, too", where, message)
		}
		events[message] = event{level: levelOf(method, call, at), keys: keysOf(call, f.Body), where: where}
		return true
	})
}

// logs returns the place of the message if a call writes a line, else -1.
func logs(call *ast.CallExpr) (method string, at int) {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", -1
	}
	at, ok = loggers[sel.Sel.Name]
	if !ok || len(call.Args) <= at {
		return "", -1
	}
	if sel.Sel.Name == "Tell" || sel.Sel.Name == "NewRecord" {
		return sel.Sel.Name, at
	}
	receiver := ""
	switch x := sel.X.(type) {
	case *ast.SelectorExpr:
		receiver = x.Sel.Name
	case *ast.Ident:
		receiver = x.Name
	}
	if receiver != "Logger" && receiver != "log" && receiver != "logger" && receiver != "slog" {
		return "", -1
	}
	return sel.Sel.Name, at
}

func levelOf(method string, call *ast.CallExpr, at int) string {
	if method != "Tell" && method != "NewRecord" {
		return strings.ToLower(strings.TrimSuffix(method, "Context"))
	}
	if sel, ok := call.Args[at-min(at, 2)].(*ast.SelectorExpr); ok && method == "Tell" {
		return strings.ToLower(strings.TrimPrefix(sel.Sel.Name, "Level"))
	}
	return "as they are"
}

// keysOf returns the names of the attributes: those of the call, and all that its
// function makes by slog.
func keysOf(call *ast.CallExpr, body ast.Node) (keys []string) {
	add := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			key, _ := strconv.Unquote(lit.Value)
			keys = append(keys, key)
		}
	}
	if sel := call.Fun.(*ast.SelectorExpr); sel.Sel.Name != "Tell" {
		for i := loggers[sel.Sel.Name] + 1; i < len(call.Args); i += 2 {
			add(call.Args[i])
		}
	}
	ast.Inspect(body, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok && len(c.Args) == 2 {
			if sel, ok := c.Fun.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "slog" {
					add(c.Args[0])
				}
			}
		}
		return true
	})
	return keys
}

var quoted = regexp.MustCompile("`([^`]+)`")

// eventsInDocs reads the table.
func eventsInDocs(t *testing.T) map[string]event {
	text, err := os.ReadFile("../docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	events := map[string]event{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		e := event{level: strings.TrimSpace(cells[2])}
		for _, m := range quoted.FindAllStringSubmatch(cells[4], -1) {
			e.keys = append(e.keys, m[1])
		}
		events[strings.Trim(cells[1], " `")] = e
	}
	return events
}

// TestLogsAreDocumented: each line that the library writes is in docs/logs.md,
// with its level and its attributes, and nothing else is.
func TestLogsAreDocumented(t *testing.T) {
	code, docs := eventsInCode(t), eventsInDocs(t)
	for name, e := range code {
		d, ok := docs[name]
		if !ok {
			t.Errorf("%s: %q is not in docs/logs.md", e.where, name)
			continue
		}
		if d.level != e.level {
			t.Errorf("%s: %q has the level %s, and by docs/logs.md %s", e.where, name, e.level, d.level)
		}
		for _, key := range e.keys {
			if !slices.Contains(d.keys, key) {
				t.Errorf("%s: %q has the attribute %q, which is not in docs/logs.md", e.where, name, key)
			}
		}
		if name != strings.ToLower(name) {
			t.Errorf("%s: %q is not in lower case", e.where, name)
		}
	}
	for name := range docs {
		if _, ok := code[name]; !ok {
			t.Errorf("docs/logs.md has %q, which nothing writes", name)
		}
	}
	if len(code) < 15 {
		t.Errorf("only %d events were found: the search is broken", len(code))
	}
}
