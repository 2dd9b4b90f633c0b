package server_test

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/printer"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// documented are the rows of docs/defaults.md: option and default.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../docs/defaults.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]+) \\| ([^|]{20,}) \\|$").FindAllStringSubmatch(string(text), -1) {
		rows[m[1]] = m[2]
	}
	return rows
}

// commented are the fields of Options whose comments speak of a default, with
// what they say from there on.
func commented(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "options.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != "Options" {
			return true
		}
		for _, f := range spec.Type.(*ast.StructType).Fields.List {
			if _, says, ok := strings.Cut(strings.Join(strings.Fields(f.Doc.Text()), " "), "Default"); ok {
				for _, name := range f.Names {
					fields[name.Name] = strings.TrimLeft(says, ": ")
				}
			}
		}
		return false
	})
	return fields
}

// set are the defaults that the code sets: by def(&o.Name, value), or where
// a field is zero. An adapter's WriteTimeout is the server's GoodbyeTimeout.
func set(t *testing.T) map[string][]int64 {
	t.Helper()
	values := map[string][]int64{}
	var files []string
	for _, glob := range []string{"*.go", "../core/options.go", "../sse/handler.go", "../longpoll/handler.go", "../ws/handler.go"} {
		found, _ := filepath.Glob(glob)
		files = append(files, found...)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		note := func(field, value ast.Expr) {
			f, ok := field.(*ast.SelectorExpr)
			v, isConstant := evaluate(value)
			if ok && isConstant && (!strings.HasPrefix(path, "../ws") || f.Sel.Name != "WriteTimeout") {
				values[f.Sel.Name] = append(values[f.Sel.Name], v)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if name, ok := n.Fun.(*ast.Ident); ok && name.Name == "def" && len(n.Args) == 2 {
					if field, ok := n.Args[0].(*ast.UnaryExpr); ok {
						note(field.X, n.Args[1])
					}
				}
			case *ast.AssignStmt:
				if n.Tok == token.ASSIGN && len(n.Lhs) == 1 {
					note(n.Lhs[0], n.Rhs[0])
				}
			}
			return true
		})
	}
	return values
}

var unit = strings.NewReplacer("time.Hour", "3600000000000", "time.Minute", "60000000000", "time.Second", "1000000000", "time.Millisecond", "1000000")

func evaluate(e ast.Expr) (int64, bool) {
	var text strings.Builder
	if printer.Fprint(&text, token.NewFileSet(), e) != nil {
		return 0, false
	}
	v, err := types.Eval(token.NewFileSet(), nil, token.NoPos, unit.Replace(text.String()))
	if err != nil || v.Value == nil || v.Value.Kind() != constant.Int {
		return 0, false
	}
	return constant.Int64Val(v.Value)
}

// amount reads a value as docs write it: 10 s, 1 min, 64 KiB, 100,000.
func amount(text string) (int64, bool) {
	number, of, _ := strings.Cut(text, " ")
	n, err := strconv.ParseInt(strings.ReplaceAll(number, ",", ""), 10, 64)
	times, known := map[string]int64{"": 1, "s": int64(time.Second), "min": int64(time.Minute), "h": int64(time.Hour), "KiB": 1 << 10, "MiB": 1 << 20}[of]
	return n * times, err == nil && known
}

// TestDefaultsAreDocumented: each option that has a default has a row with
// a reason, and the row, the field's comment and the code say the same.
func TestDefaultsAreDocumented(t *testing.T) {
	rows, comments, code := documented(t), commented(t), set(t)
	checked := 0
	for name, says := range comments {
		value, ok := rows[name]
		if !ok {
			t.Errorf("Options.%s has no row with a reason in docs/defaults.md", name)
			continue
		}
		n, isAmount := amount(value)
		if isAmount && !strings.HasPrefix(says, value) {
			t.Errorf("Options.%s: docs/defaults.md says %s, the comment %.40s", name, value, says)
		}
		for _, v := range code[name] {
			if checked++; isAmount && v != n {
				t.Errorf("Options.%s: docs/defaults.md says %s, the code %d", name, value, v)
			}
		}
	}
	for name := range rows {
		if _, ok := comments[name]; !ok {
			t.Errorf("docs/defaults.md has %s, whose field speaks of no default", name)
		}
	}
	if checked < 25 {
		t.Errorf("only %d defaults were found in the code", checked)
	}
}
