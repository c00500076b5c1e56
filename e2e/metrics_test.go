package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/internal/certtest"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// What Prometheus scrapes has the form and the names that Prometheus asks for.
func TestMetricsAreWellNamed(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	promtool := tool(t, "promtool", "prometheus")
	f := startFleet(t)
	walkAndCache(t, f)
	f.upload(t, "walk", "/m.txt", "media")
	f.edges[0].serves(t, "/walk/m.txt", "media")
	for name, address := range map[string]string{"edge": f.edges[0].metrics, "control plane": f.controlPlane.http} {
		r, err := visit(t.Context(), address, address, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		check := exec.Command(promtool, "check", "metrics")
		check.Stdin = strings.NewReader(r.body)
		if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("promtool check metrics of the %s: %v\n%s", name, err, out)
		}
		has(t, name, r.body, "edgewalk_")
	}
}

// Prometheus finds the edges by asking a control plane, with a token that may read metrics.
func TestPrometheusFindsEdges(t *testing.T) {
	t.Parallel()
	prometheus := tool(t, "prometheus", "prometheus")
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	e := startEdge(t, filepath.Join(dir, "edge"), "fra-1", cp.edges, "--region", "eu")
	e.waitReady(t)
	config := filepath.Join(dir, "prometheus.yaml")
	text := fmt.Sprintf(`global: {scrape_interval: 1s}
scrape_configs:
  - job_name: edgewalk-edge
    http_sd_configs:
      - url: http://%s/sd/edges
        authorization: {type: Bearer, credentials_file: %s}
`, cp.http, tokenFile)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	at := listentest.Unused(t)
	start(t, "prometheus", prometheus, "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "tsdb"),
		"--web.listen-address", at)
	found := regexp.MustCompile(`"labels":\{"edge":"fra-1","instance":"` + regexp.QuoteMeta(e.metrics) +
		`","job":"edgewalk-edge","region":"eu"\}[^{}]*"health":"up"`)
	eventually(t, startWithin, "Prometheus scrapes the edge", func() bool {
		r, err := visit(t.Context(), at, at, "/api/v1/targets")
		return err == nil && found.MatchString(r.body)
	})
	r, err := visit(t.Context(), cp.http, cp.http, "/sd/edges")
	if err != nil || r.status != 401 {
		t.Errorf("without a token: %d, %v", r.status, err)
	}
}

// What alerts, recording rules and dashboards ask for is there to be scraped: names and labels.
func TestMetricsThatAreAskedForExist(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	f := startFleet(t)
	walkAndCache(t, f)
	scraped := `up{job="" ,instance=""} 1` + "\n"
	dir := shortDir(t)
	token := filepath.Join(dir, "join-token")
	if err := os.WriteFile(
		token, []byte(f.do(t, "edges", "join-token", "--edge", "fra-1", "--region", "eu")), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	joined := startEdge(t, dir, "fra-1", f.controlPlane.edges, "--join-token-file", token) // it has a certificate
	joined.waitReady(t)
	cert, key := certtest.SelfSigned(t, "localhost").Files(t, dir)
	secure := startEdge(t, filepath.Join(dir, "secure"), "fra-2", f.controlPlane.edges, "--https-addr", "127.0.0.1:0",
		"--tls-cert", cert, "--tls-key", key)
	secure.waitReady(t)
	issuing := startIssuing(t, newOrigin(t, map[string]string{"/a.txt": "a"}).url)
	issuing.do(t, "create", "domain", "a.example.com", "-A", "acme", "--set", "mode=ACCOUNT")
	issuing.served(t, "a.example.com") // by one of its control planes, which has asked the authority
	for _, address := range []string{
		f.edges[0].metrics, joined.metrics, secure.metrics, f.controlPlane.http,
		issuing.cps[0].http, issuing.cps[1].http,
	} {
		r, err := visit(t.Context(), address, address, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		scraped += r.body
	}
	files, err := filepath.Glob("../deploy/*/*.[jy]*")
	if err != nil || len(files) < 4 {
		t.Fatalf("files %q, %v", files, err)
	}
	var text strings.Builder
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(strings.ReplaceAll(string(raw), `\"`, `"`))
	}
	recorded := regexp.MustCompile(`record: \S*:(edgewalk_\w+)`).FindAllStringSubmatch(text.String(), -1)
	names := 0
	for _, m := range regexp.MustCompile(`\b(edgewalk_\w+)(\{[^}]*\})?`).FindAllStringSubmatch(text.String(), -1) {
		name := m[1]
		if slices.ContainsFunc(recorded, func(r []string) bool { return r[1] == name }) {
			continue
		}
		names++
		sample := regexp.MustCompile(`(?m)^` + name + `(\{.*\})? \S+$`).FindString(scraped)
		if sample == "" {
			t.Errorf("%s is asked for and not there", name)
			continue
		}
		for _, label := range regexp.MustCompile(`(\w+)(?:=~|!=|=)"`).FindAllStringSubmatch(m[2], -1) {
			if label[1] != "instance" && label[1] != "job" && !strings.Contains(sample, label[1]+"=") {
				t.Errorf("%s has no label %s", name, label[1])
			}
		}
	}
	if names < 50 {
		t.Errorf("only %d metrics were found in rules and dashboards", names)
	}
}
