package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// apply measures how long a change takes to count at the last of the edges.
func apply(ctx context.Context, b *bench) error {
	if b.count == 0 {
		b.count = 200
	}
	fleets := []int{2, 20}
	if b.edges > 0 {
		fleets = []int{b.edges}
	}
	o, err := b.newOrigin(false)
	if err != nil {
		return err
	}
	f, err := b.startFleet(ctx)
	if err != nil {
		return err
	}
	t := newTable("apply", "edges", "changes", "p50", "p99", "max")
	for _, n := range fleets {
		if err := f.grow(ctx, n, o); err != nil {
			return err
		}
		times, err := f.changes(ctx, b.count)
		if err != nil {
			return err
		}
		for _, series := range times.series() {
			t.add(series.name, strconv.Itoa(n), strconv.Itoa(b.count), ms(median(series.values)),
				ms(quantile(series.values, 0.99)), ms(quantile(series.values, 1)))
		}
		var edges resident
		for _, e := range f.edges {
			edges.total += e.memory().total
		}
		fmt.Printf("%d edges: control plane %s resident, an edge %s\n", n, mib(f.controlplane.memory().total),
			mib(edges.total/int64(n)))
	}
	fmt.Println()
	t.print(b.out)
	fmt.Println("All processes share the machine. The edges are asked one after the other, so up to one request to each of them is in the figures.")
	return nil
}

// grow brings the fleet to n edges that serve the account.
func (f *fleet) grow(ctx context.Context, n int, o *origin) error {
	for len(f.edges) < n {
		if _, err := f.startEdge(fmt.Sprintf("edge-%02d", len(f.edges)), "--cache-size", "64MiB"); err != nil {
			return err
		}
	}
	// The number makes it a change: an apply that changes nothing has nothing to wait for.
	return f.applyAndWait(ctx, numbered(webManifest(o), -n))
}

// pollInterval is the pause between two questions to an edge: short beside what is measured, long
// enough to leave the machine to the edges.
const pollInterval = 200 * time.Microsecond

// marker is the header that names the change by which a reply was made.
const marker = "X-Change"

// numbered gives the default endpoint a header of its own.
func numbered(m *adminv1.Manifest, n int) *adminv1.Manifest {
	m.UrlEndpoints[0].ResponseHeaders = &topologyv1.ResponseHeaders{Set: map[string]string{marker: strconv.Itoa(n)}}
	return m
}

// applyTimes are those of each change: until the response, and until the last edge served by it,
// from both ends of the request; and of the changes that were waited for instead.
type applyTimes struct{ response, sent, received, waitSent, waitReceived []time.Duration }

type series struct {
	name   string
	values []time.Duration
}

func (t *applyTimes) series() []series {
	return []series{
		{"request to response", t.response},
		{"request to last edge", t.sent},
		{"response to last edge", t.received},
		{"request to end of WaitApplied", t.waitSent},
		{"response to end of WaitApplied", t.waitReceived},
	}
}

// changes makes changes, each when the one before is everywhere. Half of them are seen by asking
// the edges, half are waited for.
func (f *fleet) changes(ctx context.Context, count int) (*applyTimes, error) {
	var clients []*client
	for _, e := range f.edges {
		c, err := dial(e.http)
		if err != nil {
			return nil, err
		}
		defer c.close()
		if _, err := c.get("/100/change"); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		clients = append(clients, c)
	}
	manifest, err := adminv1.NewManifestServiceClient(f.conn).ExportManifest(ctx,
		&adminv1.ExportManifestRequest{Name: "accounts/" + accountID})
	if err != nil {
		return nil, err
	}
	m, t := manifest.GetManifest(), &applyTimes{}
	m.Account.Etag = ""
	for i := range m.UrlEndpoints {
		m.UrlEndpoints[i].Etag = ""
	}
	for i := range count {
		if err := f.change(ctx, m, i, clients, t); err != nil {
			return nil, err
		}
		if err := f.waitedChange(ctx, m, count+i, t); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// change makes a change and asks the edges until all of them serve by it.
func (f *fleet) change(ctx context.Context, m *adminv1.Manifest, n int, clients []*client, t *applyTimes) error {
	type answer struct {
		at  time.Time
		err error
	}
	answered := make(chan answer, 1)
	sent := time.Now()
	go func() {
		_, err := f.apply(ctx, numbered(m, n))
		answered <- answer{time.Now(), err}
	}()
	want := []byte(strconv.Itoa(n))
	for _, c := range clients {
		err := until(30*time.Second, pollInterval, func() (bool, error) {
			r, err := c.get("/100/change")
			return bytes.Equal(field(r.head, marker), want), err
		})
		if err != nil {
			return fmt.Errorf("change %d: %w", n, err)
		}
	}
	everywhere := time.Now()
	got := <-answered
	if got.err != nil {
		return got.err
	}
	t.response = append(t.response, got.at.Sub(sent))
	t.sent = append(t.sent, everywhere.Sub(sent))
	t.received = append(t.received, everywhere.Sub(got.at))
	return nil
}

// waitedChange makes a change and lets the control plane say when it is everywhere.
func (f *fleet) waitedChange(ctx context.Context, m *adminv1.Manifest, n int, t *applyTimes) error {
	sent := time.Now()
	revision, err := f.apply(ctx, numbered(m, n))
	if err != nil {
		return err
	}
	received := time.Now()
	if err := f.wait(ctx, revision); err != nil {
		return err
	}
	t.waitSent = append(t.waitSent, time.Since(sent))
	t.waitReceived = append(t.waitReceived, time.Since(received))
	return nil
}
