package edgesvc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/etcdnode"
	"github.com/edgewalk/edgewalk/controlplane/internal/feed/feedtest"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// etcd begins an epoch while edges are connected to two control planes: all come again and take
// everything, and none counts as having applied a revision by what it had applied in the epoch
// before, whichever control plane is asked.
func TestAnotherEpochWhileEdgesAreConnected(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	a, b := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	first := a.setting(t, "one")
	one, two := connect(t, a, hello("e1")), connect(t, b, hello("e2"))
	one.reaches(first)
	two.reaches(first)
	if got, err := a.WaitApplied(t.Context(), first, "", 2); err != nil || got.GetApplied() != 2 {
		t.Fatalf("before: %v, %v", got, err)
	}
	client, err := store.Dial(store.DialConfig{Endpoints: []string{storetest.Endpoint(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	epoch := a.Epoch()
	if _, err := client.Put(t.Context(), prefix+"meta/epoch", "another"); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*agent{one, two} {
		if err := e.ends(); status.Code(err) != codes.Aborted {
			t.Errorf("edge %s: the stream ended with %v", e.hello.GetId(), err)
		}
	}
	await.True(t, "both are in the epoch", func() bool { return a.Epoch() != epoch && a.Epoch() == b.Epoch() })
	for _, p := range []*plane{a, b} {
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		got, err := p.WaitApplied(short, first, "", 2)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || got.GetApplied() != 0 {
			t.Errorf("while the edges are away: %v, %v; want that none has applied it", got, err)
		}
	}
	one, two = connect(t, a, one.resume(), holding(one)), connect(t, b, two.resume(), holding(two))
	for _, e := range []*agent{one, two} {
		e.until("a full state of the epoch",
			func(e *feedtest.Edge) bool { return e.Fulls == 1 && e.Epoch == a.Epoch() })
	}
	second := b.setting(t, "two")
	for _, p := range []*plane{a, b} {
		if got, err := p.WaitApplied(t.Context(), second, "", 2); err != nil || got.GetApplied() != 2 {
			t.Errorf("after: %v, %v", got, err)
		}
	}
}

// diskImage is an etcd of which the disk can be kept and brought back.
type diskImage struct {
	t      *testing.T
	folder string
	node   *etcdnode.Node
}

func (d *diskImage) start() (endpoint string) {
	d.t.Helper()
	var err error
	d.node, err = etcdnode.Start(context.Background(), etcdnode.Config{
		Dir: filepath.Join(d.folder, "now"), Unsafe: true, StartTimeout: time.Minute,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return d.node.Endpoint()
}

func (d *diskImage) stop() {
	d.t.Helper()
	if d.node == nil {
		return
	}
	if err := d.node.Stop(); err != nil {
		d.t.Error(err)
	}
	d.node = nil
}

// write makes changes that are none of the topology's, and returns the last one's revision.
func (d *diskImage) write(n int) (revision int64) {
	d.t.Helper()
	client, err := store.Dial(store.DialConfig{Endpoints: []string{d.node.Endpoint()}})
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	for range n {
		answer, err := client.Put(d.t.Context(), "/elsewhere", "")
		if err != nil {
			d.t.Fatal(err)
		}
		revision = answer.Header.Revision
	}
	return revision
}

// keep copies the disk of a server that is stopped; bringBack makes it what it was then.
func (d *diskImage) keep()      { d.copy("now", "kept") }
func (d *diskImage) bringBack() { d.copy("kept", "now") }

func (d *diskImage) copy(from, to string) {
	d.t.Helper()
	err := os.RemoveAll(filepath.Join(d.folder, to))
	if err == nil {
		err = os.CopyFS(filepath.Join(d.folder, to), os.DirFS(filepath.Join(d.folder, from)))
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// The disk of etcd is taken back while no control plane runs, so that it looks like one
// that was merely stopped. An edge that has what was lost is sent everything, learns that its
// history was rewritten unless it finds out by itself, and counts for no write before it has it,
// wherever it stands.
func TestEtcdIsTakenBackWhileNobodyLooks(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	for _, test := range []struct {
		name     string
		lost     int  // steps that were lost
		unseen   int  // writes that were lost and are none of the topology's
		after    int  // steps that follow
		restart  bool // the control plane does, after them, and knows no digests of before
		findsOut bool // the edge, by a state that does not fit
		passed   bool // the edge is, by steps that follow while it takes nothing in
		behind   bool // the edge is
	}{
		{name: "the edge is ahead", lost: 60, after: 2},
		{name: "the edge is ahead, all that was lost is none of its business", unseen: 60},
		{name: "the edge is ahead, and passed by later steps", lost: 60, passed: true},
		{name: "the edge is behind", lost: 20, after: 60, behind: true},
		{name: "the edge is behind, and nobody knows what was there", lost: 20, after: 60, restart: true, behind: true,
			findsOut: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			folder, err := os.MkdirTemp("", "ewh") // sockets have short names
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(folder) })
			etcd := &diskImage{t: t, folder: folder}
			t.Cleanup(etcd.stop)
			run := func() *plane {
				return startPlaneWith(t, "/edgewalk/",
					planeConfig{etcd: etcd.node.Endpoint(), change: func(s *Service) {
						s.timing.bookmarkEvery = 50 * time.Millisecond
					}})
			}

			etcd.start()
			p := run()
			p.setting(t, "kept")
			epoch := p.Epoch()
			p.stop()
			etcd.stop()
			etcd.keep()

			etcd.start()
			p = run()
			e := connect(t, p, hello("e1"))
			for i := range test.lost {
				e.reaches(p.origins(t, "lost", 1, fmt.Sprint("http://", i)))
			}
			e.reaches(etcd.write(test.unseen))
			e.leave()
			p.stop()
			etcd.stop()
			etcd.bringBack()

			etcd.start()
			p = run()
			if p.Epoch() != epoch {
				t.Fatal("the control plane has noticed")
			}
			if test.unseen > 0 {
				early := connect(t, p, e.resume(), holding(e))
				early.until("be sent the same state",
					func(e *feedtest.Edge) bool { return e.Fulls == 1 && early.rewritten })
				first := p.setting(t, "first")
				got, err := p.WaitApplied(within(t, patience), first, "", 1)
				early.leave()
				if err != nil || got.GetApplied() != 1 ||
					early.edge.Revision >= e.edge.Revision || early.edge.Digest == e.edge.Digest {
					t.Errorf("%v, %v; the edge was at %d and is at %d", got, err, e.edge.Revision, early.edge.Revision)
				}
				return
			}
			first := p.setting(t, "first")
			last := first
			for i := range test.after {
				last = p.setting(t, fmt.Sprint("after", i))
			}
			p.reach(t, last)
			if first >= e.edge.Revision {
				t.Fatalf("the edge is at %d, before %d: too little was lost", e.edge.Revision, first)
			}
			if test.restart {
				p.stop()
				p = run()
			}
			if ahead := e.edge.Revision > p.Revision(); ahead == test.behind {
				t.Fatalf("the edge is at %d, the control plane at %d", e.edge.Revision, p.Revision())
			}

			// One that says what it had, again and again, and takes nothing in.
			still := connect(t, p, e.resume(), holding(e), silent, misled)
			if test.passed {
				still.until("be sent everything", func(*feedtest.Edge) bool { return still.rewritten })
				for last <= e.edge.Revision {
					last = p.setting(t, fmt.Sprint("passing", last))
				}
				still.reaches(e.edge.Revision + 1)
			}
			for range 3 {
				if err := still.send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Ack{Ack: &edgev1.Ack{
					Applied: e.edge.Revision, Persisted: e.edge.Revision, Durable: true, Digest: e.edge.Digest[:],
				}}}); err != nil {
					t.Fatal(err)
				}
			}
			got, err := p.WaitApplied(within(t, 300*time.Millisecond), first, "", 1)
			if !errors.Is(err, context.DeadlineExceeded) || got.GetApplied() != 0 {
				t.Errorf("an edge that has not taken in what was sent counts: %v, %v", got, err)
			}
			still.leave()

			again := connect(t, p, e.resume(), holding(e), misled)
			if test.findsOut {
				if err := again.ends(); err == nil {
					t.Fatal("the edge takes what does not fit what it has")
				}
				again = connect(t, p, hello("e1"))
			}
			again.until("be sent everything", func(e *feedtest.Edge) bool { return e.Fulls > 0 && e.Revision >= last })
			if again.edge.Fulls != 1 || again.rewritten == test.findsOut {
				t.Errorf("%d full states, said to be rewritten: %v", again.edge.Fulls, again.rewritten)
			}
			last = p.setting(t, "at last")
			if got, err := p.WaitApplied(within(t, patience), last, "", 1); err != nil || got.GetApplied() != 1 {
				t.Errorf("after it has taken everything in: %v, %v", got, err)
			}
			if again.edge.Fulls != 1 {
				t.Errorf("%d full states", again.edge.Fulls)
			}
		})
	}
}
