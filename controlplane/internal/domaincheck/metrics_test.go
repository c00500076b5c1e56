package domaincheck_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// The control plane that leads counts certificates by how they stand, and those that end and that
// nobody has replaced; another one is silent.
func TestCertificateMetrics(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	now := d.clock()
	day := 24 * time.Hour
	d.Set("example.com", "", "* A 127.0.0.21\ngone A 127.0.0.31")
	for name, c := range map[string]struct{ begin, end time.Duration }{
		"fresh.example.com": {-1 * day, 89 * day}, "third.example.com": {-61 * day, 29 * day},
		"sixth.example.com": {-80 * day, 10 * day}, "ended.example.com": {-91 * day, -1 * day},
		"short.example.com": {-3 * day, 3 * day},   // half of its life is left
		"gone.example.com":  {-91 * day, -2 * day}, // and it leads elsewhere
		"none.example.com":  {},
	} {
		if err := d.claim(t, "operator", name); err != nil {
			t.Fatal(err)
		}
		if c.end == 0 {
			continue
		}
		record, _, err := d.store.Get(t.Context(), domainKey("operator", name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.store.PutCertificate(t.Context(), "operator", store.RequestID{}, store.Certificate{
			Domain: topology.DomainID(name), UID: topology.UID(topology.DomainID(name), record.CreateRevision),
			Pair:      &topologyv1.KeyPair{Leaf: []byte("leaf"), Key: []byte("key")},
			NotBefore: now.Add(c.begin), NotAfter: now.Add(c.end),
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	registry := prometheus.NewRegistry()
	leader := d.service(t, d.store)
	other := d.service(t, storetest.Open(t, store.Config{Prefix: d.prefix}))
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	f := feed.New(feed.Config{Store: d.store, Logger: log})
	registry.MustRegister(leader.Metrics(f))
	silent := prometheus.NewRegistry()
	silent.MustRegister(other.Metrics(f))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = f.Run(ctx) })
	running.Go(func() {
		_ = d.store.Lead(ctx, domaincheck.Matter, "cp1", func(ctx context.Context, fence *store.Fence) error {
			return leader.Lead(ctx, fence)
		})
	})
	<-f.Loaded()
	want := "soonest -1; ending sixth 2 third 3; " +
		"expired 2 failed 0 issued 4 none 1 ordering 0 renewing 0 waiting 0"
	const ticking = 20 * time.Millisecond
	ticker := time.NewTicker(ticking)
	defer ticker.Stop()
	patient, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for got := ""; got != want; {
		d.pass(ticking) // until each name was looked at
		got = values(t, registry)
		select {
		case <-ticker.C:
		case <-patient.Done():
			t.Fatalf("%s\nwant %s", got, want)
		}
	}
	if n, err := testutil.GatherAndCount(silent); err != nil || n != 0 {
		t.Errorf("the other control plane has %d series, %v", n, err)
	}
}

// values is the metrics of certificates in a line, with the soonest end in days.
func values(t *testing.T, from prometheus.Gatherer) string {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	parts := make(map[string]string)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				parts[family.GetName()] += " " + label.GetValue()
			}
			value := m.GetGauge().GetValue()
			if family.GetName() == "edgewalk_certificate_soonest_expiry_seconds" {
				value = math.Trunc(value / (24 * 3600))
			}
			parts[family.GetName()] += fmt.Sprintf(" %v", value)
		}
	}
	return "soonest" + parts["edgewalk_certificate_soonest_expiry_seconds"] + "; ending" +
		parts["edgewalk_certificates_ending"] + ";" + parts["edgewalk_certificates"]
}
