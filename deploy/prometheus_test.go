package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type alert struct {
	Alert       string            `yaml:"alert"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alerts(t *testing.T) []alert {
	t.Helper()
	text, err := os.ReadFile("prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct{ Rules []alert }
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var all []alert
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("no alerts")
	}
	return all
}

// incidents are what each alert is about, as series of one sample a minute: well for 10 minutes,
// then not for 30, then well again.
var incidents = map[string]struct {
	series []string
	labels string // of the alert, beside its severity
}{
	"EdgewalkDown": {[]string{`up{job="edgewalk-edge",instance="e"} 1x9 0x29 1x60`}, `job: edgewalk-edge, instance: e`},
	"EdgewalkErrors": {[]string{
		`edgewalk_edge_requests_total{instance="e",outcome="hit"} 0+600x99`,
		`edgewalk_edge_requests_total{instance="e",outcome="error"} 0x9 0+60x29 1740x60`,
	}, `instance: e`},
	"EdgewalkRefusing":        {[]string{`edgewalk_edge_refused_total{instance="e",reason="requests"} 0x9 0+120x29 3480x60`}, `instance: e, reason: requests`},
	"EdgewalkOriginDown":      {[]string{`edgewalk_origin_breakers{instance="e",state="open"} 0x9 2x29 0x60`}, `instance: e, state: open`},
	"EdgewalkFaults":          {[]string{`edgewalk_edge_panics_total{instance="e"} 0x9 1+1x29 30x60`}, `instance: e`},
	"EdgewalkTopologyOld":     {[]string{`edgewalk_edge_config_age_seconds{instance="e"} 1x9 400+60x29 1x60`}, `instance: e`},
	"EdgewalkEdgeCertificate": {[]string{`edgewalk_edge_certificate_expiry_timestamp_seconds{instance="e"} 700000x9 90000x29 700000x60`}, `instance: e`},
	// The life of these is 90 days; promtool's clock begins at 0.
	"EdgewalkListenerCertificate": {[]string{
		`edgewalk_listener_certificate_not_before_timestamp_seconds{instance="e",file="f"} -3888000x9 -6480000x29 0x60`,
		`edgewalk_listener_certificate_expiry_timestamp_seconds{instance="e",file="f"} 3888000x9 1296000x29 7776000x60`,
	}, `instance: e, file: f`},
	"EdgewalkListenerCertificateEnds": {[]string{
		`edgewalk_listener_certificate_not_before_timestamp_seconds{instance="e",file="f"} -5184000x9 -6912000x29 0x60`,
		`edgewalk_listener_certificate_expiry_timestamp_seconds{instance="e",file="f"} 2592000x9 864000x29 7776000x60`,
	}, `instance: e, file: f`},
	"EdgewalkCertificatesMissing": {[]string{
		`edgewalk_edge_certificates{instance="e",state="missing"} 0x9 3x29 0x60`,
	}, `instance: e, state: missing`},
	"EdgewalkCertificatesLate": {[]string{
		`edgewalk_certificates_ending{instance="c",left="third"} 0x9 2x29 0x60`,
	}, `instance: c, left: third`},
	"EdgewalkCertificatesEnd": {[]string{
		`edgewalk_certificates_ending{instance="c",left="third"} 2x99`,
		`edgewalk_certificates_ending{instance="c",left="sixth"} 0x9 1x29 0x60`,
	}, `instance: c, left: sixth`},
	"EdgewalkClockWrong": {[]string{
		`edgewalk_issuer_clock_skew_seconds{instance="c",issuer="le"} 2x9 -600x29 0x60`,
	}, `instance: c, issuer: le`},
	"EdgewalkTopologyNotKept": {[]string{`edgewalk_edge_config_durable{instance="e"} 1x9 0x29 1x60`}, `instance: e`},
	"EdgewalkNotStoring":      {[]string{`edgewalk_cache_storing{instance="e"} 1x9 0x29 1x60`}, `instance: e`},
	"EdgewalkChangeRefused":   {[]string{`edgewalk_edge_config_rejected{instance="e"} 0x9 3x29 0x60`}, `instance: e`},
	"EdgewalkEtcdLost":        {[]string{`edgewalk_controlplane_staleness_seconds{instance="c"} 0x9 60+60x29 0x60`}, `instance: c`},
	"EdgewalkEtcdFull":        {[]string{`edgewalk_store_full{instance="c"} 0x9 1x29 0x60`}, `instance: c`},
	"EdgewalkEtcdFills": {[]string{
		`edgewalk_store_quota_bytes{instance="c"} 1000x99`, `edgewalk_store_size_bytes{instance="c"} 500x9 700x29 500x60`,
	}, `instance: c`},
	"EdgewalkHistoryLost":     {[]string{`edgewalk_store_history_losses_total{instance="c"} 0x9 1x89`}, `instance: c`},
	"EdgewalkEdgesMissing":    {[]string{`edgewalk_controlplane_edges{instance="c",state="lost"} 0x9 1x29 0x60`}, `instance: c, state: lost`},
	"EdgewalkEdgesBehind":     {[]string{`edgewalk_controlplane_edges{instance="c",state="behind"} 0x9 1x29 0x60`}, `instance: c, state: behind`},
	"EdgewalkPeerUnreachable": {[]string{`edgewalk_controlplane_peers{instance="c",state="unreachable"} 0x9 1x29 0x60`}, `instance: c, state: unreachable`},
}

// Each alert is silent before its incident, fires in it, and is silent again after it.
func TestAlertsFireAndResolve(t *testing.T) {
	t.Parallel()
	promtool := need(t, "promtool", "prometheus")
	folder, err := filepath.Abs("prometheus")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "rule_files: [%s/rules.yaml, %s/alerts.yaml]\nevaluation_interval: 1m\ntests:\n", folder, folder)
	known := slices.Collect(func(yield func(string) bool) {
		for name := range incidents {
			if !yield(name) {
				return
			}
		}
	})
	for _, a := range alerts(t) {
		incident, ok := incidents[a.Alert]
		if !ok {
			t.Errorf("%s has no incident here", a.Alert)
			continue
		}
		known = slices.DeleteFunc(known, func(name string) bool { return name == a.Alert })
		fmt.Fprintf(&text, "- name: %s\n  interval: 1m\n  input_series:\n", a.Alert)
		for _, series := range incident.series {
			name, values, _ := strings.Cut(series, "} ")
			fmt.Fprintf(&text, "  - {series: '%s}', values: '%s'}\n", name, values)
		}
		fmt.Fprintf(&text, "  promql_expr_test:\n")
		for minute, firing := range map[int]int{5: 0, 32: 1, 99: 0} {
			fmt.Fprintf(&text, "  - expr: count(ALERTS{alertname=%q,alertstate=\"firing\"}) or vector(0)\n    eval_time: %dm\n    exp_samples: [{value: %d}]\n",
				a.Alert, minute, firing)
		}
		fmt.Fprintf(&text, "  - expr: count(ALERTS{alertname=%q,alertstate=\"firing\",%s})\n    eval_time: 32m\n    exp_samples: [{value: 1}]\n", a.Alert, matchers(incident.labels))
	}
	if len(known) > 0 {
		t.Errorf("no alerts: %q", known)
	}
	file := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// matchers turns `a: b, c: d` into `a="b",c="d"`.
func matchers(labels string) string {
	var out []string
	for one := range strings.SplitSeq(labels, ", ") {
		name, value, _ := strings.Cut(one, ": ")
		out = append(out, fmt.Sprintf("%s=%q", name, value))
	}
	return strings.Join(out, ",")
}

// Each alert links to a section of the runbooks that is there, and each section is one of an alert.
func TestAlertsHaveRunbooks(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	var sections []string
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "## Edgewalk"); ok {
			sections = append(sections, "Edgewalk"+strings.TrimSpace(name))
		}
	}
	for _, a := range alerts(t) {
		if want := "https://github.com/edgewalk/edgewalk/blob/main/docs/runbooks.md#" + strings.ToLower(a.Alert); a.Annotations["runbook_url"] != want {
			t.Errorf("%s links to %s, want %s", a.Alert, a.Annotations["runbook_url"], want)
		}
		if !slices.Contains(sections, a.Alert) {
			t.Errorf("docs/runbooks.md has no section %s", a.Alert)
		}
		sections = slices.DeleteFunc(sections, func(name string) bool { return name == a.Alert })
		if severity := a.Labels["severity"]; severity != "page" && severity != "ticket" {
			t.Errorf("%s has the severity %q", a.Alert, severity)
		}
	}
	if len(sections) > 0 {
		t.Errorf("docs/runbooks.md has sections of no alert: %q", sections)
	}
}

// Prometheus reads the example of its configuration.
func TestPrometheusConfiguration(t *testing.T) {
	t.Parallel()
	promtool := need(t, "promtool", "prometheus")
	if out, err := exec.CommandContext(
		t.Context(), promtool, "check", "config", "prometheus/prometheus.yaml",
	).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Prometheus reads each query of the dashboards, once Grafana has put in what its variables stand
// for.
func TestDashboardQueriesAreRead(t *testing.T) {
	t.Parallel()
	promtool := need(t, "promtool", "prometheus")
	files, err := filepath.Glob("grafana/*.json")
	if err != nil || len(files) != 2 {
		t.Fatalf("dashboards %q, %v", files, err)
	}
	var queries []string
	var collect func(value any)
	collect = func(value any) {
		switch v := value.(type) {
		case map[string]any:
			if query, ok := v["expr"].(string); ok {
				queries = append(queries, query)
			}
			for _, inner := range v {
				collect(inner)
			}
		case []any:
			for _, inner := range v {
				collect(inner)
			}
		}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var dashboard any
		if err := json.Unmarshal(text, &dashboard); err != nil {
			t.Fatal(err)
		}
		collect(dashboard)
	}
	if len(queries) < 20 {
		t.Errorf("only %d queries were found", len(queries))
	}
	variables := regexp.MustCompile(`\$\{?\w+\}?`)
	var rules strings.Builder
	rules.WriteString("groups: [{name: dashboards, rules: [\n")
	for i, query := range queries {
		query = strings.ReplaceAll(query, "$__rate_interval", "5m")
		fmt.Fprintf(&rules, "{record: 'q:%d', expr: %q},\n", i, variables.ReplaceAllString(query, "x"))
	}
	rules.WriteString("]}]\n")
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, rules.String())
	}
}
