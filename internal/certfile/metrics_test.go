package certfile

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// There is one series of a certificate's begin and end, even if its file is named twice.
func TestMetrics(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pair := Pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	write(t, pair, "a.test")
	files, err := Load([]Pair{pair, pair}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(files.Metrics())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, family := range families {
		for _, m := range family.GetMetric() {
			file, value := m.GetLabel()[0].GetValue(), int64(m.GetGauge().GetValue())
			got = append(got, fmt.Sprintf("%s %s %d", family.GetName(), file, value))
		}
	}
	issued, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		fmt.Sprintf("edgewalk_listener_certificate_expiry_timestamp_seconds %s %d", pair.Cert,
			issued.Leaf.NotAfter.Unix()),
		fmt.Sprintf("edgewalk_listener_certificate_not_before_timestamp_seconds %s %d", pair.Cert,
			issued.Leaf.NotBefore.Unix()),
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
