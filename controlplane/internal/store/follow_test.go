package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/controlplane/internal/index"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/metrictest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// mirror follows a store and checks each step: nothing lost, nothing repeated.
type mirror struct {
	t    *testing.T
	gate chan struct{} // when not nil, each step waits for one token

	mu       sync.Mutex
	epoch    string
	records  map[topology.Key]topology.Record
	steps    []store.Step
	progress int64
	asOf     time.Time
	writer   *index.Writer
	index    index.Index
	advanced chan struct{}
}

type item struct{ record topology.Record }

func (i *item) Key() topology.Key       { return i.record.Key }
func (i *item) Record() topology.Record { return i.record }

func follow(t *testing.T, s *store.Store, gate chan struct{}) *mirror {
	t.Helper()
	m := &mirror{
		t: t, gate: gate, records: make(map[topology.Key]topology.Record), writer: index.NewWriter(),
		advanced: make(chan struct{}),
	}
	m.index = m.writer.Index()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.Follow(
			ctx,
			store.Follower{
				Known: m.known, Step: func(step store.Step) error { return m.step(ctx, step) }, Account: m.account,
				Progress: m.note,
			},
		)
		if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
			t.Errorf("follow ended: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return m
}

func (m *mirror) known() (string, iter.Seq[topology.Record]) { return m.epoch, maps.Values(m.records) }

func (m *mirror) step(ctx context.Context, step store.Step) error {
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	prev := int64(0)
	if n := len(m.steps); n > 0 && m.epoch == step.Epoch {
		prev = m.steps[n-1].Revision
	}
	if m.epoch != step.Epoch {
		if m.epoch != "" && !step.Reload {
			m.t.Errorf("epoch %s begins with %+v", step.Epoch, step)
		}
		m.epoch, m.progress = step.Epoch, 0
		clear(m.records)
		m.writer = index.NewWriter()
	}
	if step.Prev != prev || step.Revision <= prev {
		m.t.Errorf("step %d after %d, want after %d", step.Revision, step.Prev, prev)
	}
	for _, record := range step.Records {
		old, held := m.records[record.Key]
		switch {
		case record.Value == nil && !held && step.Prev != 0: // the first step has deletions too
			m.t.Errorf("step %d deletes %s, which was not there", step.Revision, record.Key)
		case held && old.ModRevision >= record.ModRevision:
			m.t.Errorf("step %d repeats %s of %d", step.Revision, record.Key, record.ModRevision)
		case !step.Reload && record.ModRevision != step.Revision:
			m.t.Errorf("step %d has %s of %d", step.Revision, record.Key, record.ModRevision)
		}
		if record.Value == nil {
			delete(m.records, record.Key)
			m.writer.Drop(record.Key)
		} else {
			m.records[record.Key] = record
			m.writer.Put(&item{record})
		}
	}
	for account, write := range step.Writes {
		m.writer.Written(account, write)
	}
	m.index = m.writer.Index()
	m.steps = append(m.steps, step)
	close(m.advanced)
	m.advanced = make(chan struct{})
	return nil
}

func (m *mirror) account(id string) store.Held {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := store.Held{Records: m.index.Account(id), Epoch: m.epoch, Advanced: m.advanced}
	if n := len(m.steps); n > 0 {
		at.Revision = m.steps[n-1].Revision
	}
	return at
}

func (m *mirror) note(revision int64, asOf time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if revision < m.progress {
		m.t.Errorf("progress went from %d to %d", m.progress, revision)
	}
	m.progress, m.asOf = revision, asOf
}

func (m *mirror) at() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.steps) == 0 {
		return 0
	}
	return m.steps[len(m.steps)-1].Revision
}

func (m *mirror) last() store.Step {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.steps[len(m.steps)-1]
}

// check compares the mirror with what etcd holds.
func (m *mirror) check(s *store.Store) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	err := s.Load(m.t.Context(), func(records []topology.Record) error {
		for _, record := range records {
			n++
			held := m.records[record.Key]
			if held.ModRevision != record.ModRevision || held.CreateRevision != record.CreateRevision ||
				!bytes.Equal(held.Value, record.Value) {
				m.t.Errorf("%s: have %d, etcd has %d", record.Key, held.ModRevision, record.ModRevision)
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	if n != len(m.records) {
		m.t.Errorf("have %d records, etcd has %d", len(m.records), n)
	}
}

func TestFollowTellsEachTransactionAsOneStep(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	mustPut(t, s, "acme", accountPut("acme", ""), originPut("acme", "o", "http://a"))
	m := follow(t, s, nil)
	eventually(t, func() bool { return m.at() != 0 })
	if first := m.last(); first.Prev != 0 || !first.Reload || len(first.Records) != 2 {
		t.Errorf("first step %+v, want the whole topology", first)
	}

	big := []store.Put{}
	for i := range store.MaxResources {
		big = append(big, originPut("acme", fmt.Sprintf("o%d", i), "http://a"))
	}
	revision := mustPut(t, s, "acme", big...)
	eventually(t, func() bool { return m.at() == revision })
	if step := m.last(); len(step.Records) != store.MaxResources || step.Reload {
		t.Errorf("%d resources came as %d", store.MaxResources, len(step.Records))
	}
	if err := remove(t.Context(), s, "acme", key(topology.KindOrigins, "acme", "o")); err != nil {
		t.Fatal(err)
	}
	settings, err := s.ChangeSettings(t.Context(), nil, func(*topologyv1.Settings) {})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return m.at() == settings })
	if last := m.last(); len(last.Records) != 1 || last.Records[0].Value == nil {
		t.Errorf("empty settings came as %+v", last)
	}
	m.check(s)
	// What edges do not see moves the revision without a step.
	if _, err := s.MediaIdentity(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.progress > settings && !m.asOf.IsZero()
	})
	if m.at() != settings {
		t.Errorf("a step at %d, want none after %d", m.at(), settings)
	}
}

// A new follower receives deletions that it cannot see, as far as etcd's history goes.
func TestFirstStepTellsOfDeletions(t *testing.T) {
	t.Parallel()
	s, _, stop := server(t, filepath.Join(t.TempDir(), "data"), 0)
	t.Cleanup(stop)
	mustPut(t, s, "acme", accountPut("acme", ""), originPut("acme", "forgotten", "http://a"),
		originPut("acme", "gone", "http://a"), originPut("acme", "back", "http://a"))
	if err := remove(t.Context(), s, "acme", key(topology.KindOrigins, "acme", "forgotten")); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := mustPut(t, s, "acme", accountPut("acme", "later"))
	for _, id := range []string{"gone", "back"} {
		if err := remove(t.Context(), s, "acme", key(topology.KindOrigins, "acme", id)); err != nil {
			t.Fatal(err)
		}
	}
	mustPut(t, s, "acme", originPut("acme", "back", "http://b"))
	m := follow(t, s, nil)
	eventually(t, func() bool { return m.at() != 0 })
	first := m.last()
	var gone []string
	for _, record := range first.Records {
		if record.Value == nil {
			gone = append(gone, record.Key.ID)
		}
	}
	if fmt.Sprint(gone) != "[gone]" || first.Since == 0 || first.Since >= before {
		t.Errorf("deleted after %d: %v; want [gone] after less than %d", first.Since, gone, before)
	}
	m.check(s)
}

// etcd compacts the changes while the follower is cut off: the store reads the whole and passes on
// only the true differences.
func TestFollowAfterCompaction(t *testing.T) {
	t.Parallel()
	near, endpoint, stop := server(t, filepath.Join(t.TempDir(), "data"), 0)
	t.Cleanup(stop)
	l := linkTo(t, endpoint)
	far := l.open(t, store.Config{})
	mustPut(t, near, "acme", accountPut("acme", ""), originPut("acme", "same", "http://a"),
		originPut("acme", "changed", "http://a"), originPut("acme", "gone", "http://a"))
	m := follow(t, far, nil)
	eventually(t, func() bool { return m.at() != 0 })

	l.refuse.Store(true)
	l.cut()
	mustPut(t, near, "acme", originPut("acme", "changed", "http://b"))
	if err := remove(t.Context(), near, "acme", key(topology.KindOrigins, "acme", "gone")); err != nil {
		t.Fatal(err)
	}
	mustPut(t, near, "acme", originPut("acme", "new", "http://b"))
	if err := near.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.refuse.Store(false)
	eventually(t, func() bool { return m.last().Prev != 0 })
	step := m.last()
	var changes []string
	for _, record := range step.Records {
		sign := "+"
		if record.Value == nil {
			sign = "-"
		}
		changes = append(changes, sign+record.Key.ID)
	}
	if got := strings.Join(changes, " "); got != "+changed -gone +new" || !step.Reload {
		t.Errorf("told %q, reload %v; want the differences", got, step.Reload)
	}
	m.check(near)
}

// A follower that stands still while more changes than the queue holds gets them all, one by one,
// later.
func TestFollowSlowly(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s := storetest.Open(t, store.Config{Prefix: storetest.Prefix(), Registerer: registry})
	s.SetQueueBytes(100 << 10)
	mustPut(t, s, "acme", accountPut("acme", ""))
	gate := make(chan struct{})
	m := follow(t, s, gate)
	gate <- struct{}{}
	eventually(t, func() bool { return m.at() != 0 })
	small := mustPut(t, s, "acme", accountPut("acme", "small"))
	gate <- struct{}{}
	eventually(t, func() bool { return m.at() == small })

	filler := strings.Repeat("x", 1900)
	var last int64
	const writes = 30
	for i := range writes {
		var puts []store.Put
		for o := range 5 {
			puts = append(puts, originPut("acme", fmt.Sprintf("o%d", o), fmt.Sprintf("http://%d/%s", i, filler)))
		}
		last = mustPut(t, s, "acme", puts...)
	}
	eventually(t, func() bool { return restarts(t, registry, "slow") > 0 })
	close(gate)
	eventually(t, func() bool { return m.at() == last })
	if n := len(m.steps); n != 2+writes {
		t.Errorf("%d steps, want %d", n, 2+writes)
	}
	m.check(s)
}

func restarts(t *testing.T, registry *prometheus.Registry, reason string) float64 {
	t.Helper()
	return metrictest.Values(t, registry)["edgewalk_store_watch_restarts_total reason="+reason]
}

// Two writers change and delete over a link that breaks, and so does the follower's: it ends with
// what etcd has.
func TestFollowOverABrokenLink(t *testing.T) {
	t.Parallel()
	near, endpoint, stop := server(t, filepath.Join(t.TempDir(), "data"), 0)
	t.Cleanup(stop)
	l := linkTo(t, endpoint)
	far := l.open(t, store.Config{})
	mustPut(t, near, "a", accountPut("a", ""))
	mustPut(t, near, "b", accountPut("b", ""))
	m := follow(t, far, nil)
	var wg sync.WaitGroup
	for _, account := range []string{"a", "b"} {
		wg.Go(func() {
			for i := range 60 {
				id := fmt.Sprintf("o%d", i%7)
				if i%3 == 2 {
					if err := remove(t.Context(), near, account, key(topology.KindOrigins, account, id)); err != nil {
						t.Error(err)
					}
				} else if _, err := put(
					t.Context(), near, account, originPut(account, id, fmt.Sprintf("http://%d", i)),
				); err != nil {
					t.Error(err)
				}
				if i%5 == 0 {
					l.cut()
				}
				if i == 30 {
					if err := near.Compact(t.Context()); err != nil && !errors.Is(err, store.ErrCompacted) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	last := mustPut(t, near, "a", accountPut("a", "end"))
	eventually(t, func() bool { return m.at() >= last })
	m.check(near)
}

func TestFollowEndsWithTheFollowersError(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	own := errors.New("own")
	err := s.Follow(t.Context(), store.Follower{
		Known: func() (string, iter.Seq[topology.Record]) {
			return "", maps.Values(map[topology.Key]topology.Record{})
		},
		Step: func(store.Step) error { return own },
	})
	if err != own {
		t.Errorf("got %v", err)
	}
}
