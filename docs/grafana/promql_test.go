package grafana

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// ownValues are the texts that name what labels may be.
func ownValues(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, path := range []string{"../metrics.md", "../logs.md", "../../PROTOCOL.md", "../../server/options.go", "../../server/closed.go"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// check has Prometheus itself read an expression, and looks whether there can be
// such values of labels.
func check(t *testing.T, where, expr, known string) {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v in %s", where, err, expr)
		return
	}
	for _, selector := range parser.ExtractSelectors(parsed) {
		for _, m := range selector {
			if slices.Contains([]string{model.MetricNameLabel, "job", "instance"}, m.Name) || strings.HasPrefix(m.Value, "$") || m.Name == "namespace" {
				continue
			}
			values := []string{m.Value}
			if m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp {
				values = strings.Split(m.Value, "|")
			}
			for _, value := range values {
				if !strings.Contains(known, "`"+value+"`") && !strings.Contains(known, `"`+value+`"`) {
					t.Errorf("%s: nothing says that %s may be %q", where, m.Name, value)
				}
			}
		}
	}
}

func TestAlertsParse(t *testing.T) {
	text, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	known, n := ownValues(t), 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			n++
			check(t, r.Alert, r.Expr, known)
			if _, err := model.ParseDuration(r.For); err != nil || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["runbook_url"] == "" {
				t.Errorf("%s: %v: %+v", r.Alert, err, r)
			}
		}
	}
	if n < 15 {
		t.Errorf("%d rules", n)
	}
}

func TestDashboardParses(t *testing.T) {
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	known, n := ownValues(t), 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			n++
			check(t, p.Title, strings.ReplaceAll(target.Expr, "$__rate_interval", "1m"), known)
		}
	}
	if n < 25 {
		t.Errorf("%d expressions", n)
	}
}
