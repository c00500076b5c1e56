package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The dashboards in deploy/grafana are those that this program writes.
func TestDashboardsAreUpToDate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, built := range all {
		if err := write(filepath.Join(dir, name+".json"), built()); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(dir, name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("../../deploy/grafana", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("deploy/grafana/%s.json is stale: run make generate", name)
		}
	}
}
