package server_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Two files of docs/grafana hang on the names of metrics: a dashboard, and rules
// for alerts. That Prometheus can read their expressions is tested beside them, in
// a module of its own.

// fromPrometheus are the labels of what it scrapes that the files may use.
var fromPrometheus = []string{"job", "instance"}

// goldenMetrics are the labels of each series that there is, by name.
func goldenMetrics(t *testing.T) map[string][]string {
	t.Helper()
	golden, err := os.ReadFile("testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	series := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+) (\w+) \{(.*?)\}`).FindAllStringSubmatch(string(golden), -1) {
		labels := append(strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' }), fromPrometheus...)
		if m[2] != "histogram" {
			series[m[1]] = labels
			continue
		}
		series[m[1]+"_bucket"] = append(slices.Clone(labels), "le")
		series[m[1]+"_sum"], series[m[1]+"_count"] = labels, labels
	}
	if len(series) < 25 {
		t.Fatalf("testdata/metrics.golden has %d series", len(series))
	}
	return series
}

var (
	seriesName = regexp.MustCompile(`\bthroughline_\w+`)
	selected   = regexp.MustCompile(`\b(throughline_\w+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"`)
	grouping   = regexp.MustCompile(`\b(?:by|without|on|ignoring)\s*\(([^)]*)\)`)
)

// wrongNames returns the names in an expression that there are not.
func wrongNames(expr string, series map[string][]string) (wrong []string) {
	var known []string
	for _, name := range seriesName.FindAllString(expr, -1) {
		if series[name] == nil {
			wrong = append(wrong, name)
		}
		known = append(known, series[name]...)
	}
	for _, m := range selected.FindAllStringSubmatch(expr, -1) {
		for _, label := range matcher.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(series[m[1]], label[1]) {
				wrong = append(wrong, m[1]+"{"+label[1]+"}")
			}
		}
	}
	for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			if label = strings.TrimSpace(label); label != "" && !slices.Contains(known, label) {
				wrong = append(wrong, m[0])
			}
		}
	}
	return wrong
}

// TestWrongNamesAreFound: what the two tests below look with sees something.
func TestWrongNamesAreFound(t *testing.T) {
	series := goldenMetrics(t)
	for expr, want := range map[string]int{
		`sum by (job, transport) (throughline_connections{transport="ws"})`:              0,
		`histogram_quantile(0.9, sum by (le) (rate(throughline_lag_events_bucket[5m])))`: 0,
		`throughline_conections`:                    1,
		`throughline_lag_events`:                    1, // a histogram has no series of that name
		`throughline_sessions{transport="ws"}`:      1,
		`sum by (reason) (throughline_connections)`: 1,
		`throughline_sessions{job="x"} / on (le) throughline_connections{reason!="a",namespace=~"b.*"} > 1`: 2,
	} {
		if got := wrongNames(expr, series); len(got) != want {
			t.Errorf("%s: %q, want %d", expr, got, want)
		}
	}
}

// A panel of a dashboard, and what else has expressions.
type panel struct {
	ID         int
	Type       string
	Title      string
	Datasource *struct{ Type, UID string }
	Targets    []struct {
		Expr       string
		Datasource struct{ Type, UID string }
	}
	GridPos struct{ H, W, X, Y int }
}

// TestDashboard: it is one that Grafana 11 takes, of any data source, and each
// name in it is that of a metric of ours. All metrics are shown.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../docs/grafana/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Title         string
		SchemaVersion int
		Panels        []panel
		Templating    struct {
			List []struct{ Name, Type, Query, Definition any }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.SchemaVersion < 39 || d.Templating.List[0].Name != "datasource" || d.Templating.List[0].Type != "datasource" || d.Templating.List[0].Query != "prometheus" {
		t.Errorf("schema %d, first variable %v", d.SchemaVersion, d.Templating.List[0])
	}
	series := goldenMetrics(t)
	for _, v := range d.Templating.List[1:] {
		definition, _ := v.Definition.(string)
		if wrong := wrongNames(definition, series); len(wrong) > 0 || !seriesName.MatchString(definition) {
			t.Errorf("variable %v: %q in %s", v.Name, wrong, definition)
		}
	}
	ids := map[int]bool{}
	for i, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("%s: its id is that of another", p.Title)
		}
		ids[p.ID] = true
		checkPanel(t, p, series)
		for _, q := range d.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s lies over %s", p.Title, q.Title)
			}
		}
	}
	for name := range series {
		name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if !strings.Contains(string(text), name) {
			t.Errorf("%s is not shown", name)
		}
	}
}

func checkPanel(t *testing.T, p panel, series map[string][]string) {
	t.Helper()
	if p.Type == "row" {
		return
	}
	if p.Datasource == nil || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
		t.Errorf("%s: %+v", p.Title, p)
	}
	for _, q := range p.Targets {
		if wrong := wrongNames(q.Expr, series); len(wrong) > 0 || !seriesName.MatchString(q.Expr) {
			t.Errorf("%s: %q in %s", p.Title, wrong, q.Expr)
		}
		if q.Datasource.UID != "${datasource}" || !strings.Contains(q.Expr, `{job=~"$job",instance=~"$instance"`) {
			t.Errorf("%s: %s", p.Title, q.Expr)
		}
	}
}

// TestAlerts: each rule says what to do, names a page of the docs that is there,
// and only metrics of ours.
func TestAlerts(t *testing.T) {
	text, err := os.ReadFile("../docs/grafana/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	series := goldenMetrics(t)
	rules := strings.Split(string(text), "\n      - alert: ")[1:]
	if len(rules) < 15 {
		t.Fatalf("%d rules", len(rules))
	}
	shape := regexp.MustCompile(`^(\w+)
        expr: '(.+)'
        for: \d+[smh]
        labels:
          severity: (?:critical|warning)
        annotations:
          summary: '(.+)'
          runbook_url: https://github\.com/throughline/throughline/blob/main/(docs/\S+\.md)(?:\s|$)`)
	seen := map[string]bool{}
	for _, rule := range rules {
		m := shape.FindStringSubmatch(rule)
		if m == nil {
			t.Errorf("a rule is not like the others:\n%s", rule)
			continue
		}
		if wrong := wrongNames(m[2], series); len(wrong) > 0 || !seriesName.MatchString(m[2]) {
			t.Errorf("%s: %q in %s", m[1], wrong, m[2])
		}
		if _, err := os.Stat("../" + m[4]); err != nil || seen[m[1]] || strings.Count(m[3], ". ") == 0 {
			t.Errorf("%s: %v, and its summary has to say what happened and what to do: %s", m[1], err, m[3])
		}
		seen[m[1]] = true
	}
}
