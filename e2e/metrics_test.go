package e2e

import (
	"os/exec"
	"strings"
	"testing"
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
