package edgesvc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed/feedtest"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/metrictest"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// zstdHello is the hello of an agent that takes compressed chunks.
func zstdHello(id string) *edgev1.Hello {
	h := hello(id)
	h.AcceptsZstd = true
	return h
}

// compressions is how many chunks the control plane has compressed.
func (p *plane) compressions(tb testing.TB) int {
	tb.Helper()
	n, ok := metrictest.Values(tb, p.registry)["edgewalk_controlplane_chunks_compressed_total"]
	if !ok {
		tb.Fatal("there is no such metric")
	}
	return int(n)
}

// The whole topology is compressed once for all edges that need it at the time, and an agent that
// does not know of compression is sent it plain. They all end with the same.
func TestFullStateIsCompressedOnce(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	url := "http://" + strings.Repeat("a", 450)
	revision := p.origins(t, "acme", 1998, url)
	p.reach(t, revision)
	_, release := p.feed.Share(p.feed.View(), 0, 0) // kept for as long as the test takes
	defer release()
	var agents []*agent
	for i := range 6 {
		agents = append(agents, connect(t, p, zstdHello(fmt.Sprint("e", i))))
	}
	old := connect(t, p, hello("old"))
	for _, a := range append(agents, old) {
		a.reaches(revision)
		a.leave()
	}
	chunks := p.compressions(t)
	for _, a := range agents {
		if a.edge.Compressed != chunks || chunks < 4 || a.edge.Digest != old.edge.Digest {
			t.Errorf("edge %s was sent %d compressed chunks, %d were made for all", a.hello.GetId(), a.edge.Compressed, chunks)
		}
	}
	if old.edge.Compressed > 0 || len(old.edge.Records) != 1999 {
		t.Errorf("an old agent was sent %d compressed chunks, and has %d records", old.edge.Compressed, len(old.edge.Records))
	}
}

// Edges that missed the same are sent the same.
func TestCatchUpIsCompressedOnce(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	var agents []*agent
	for i := range 3 {
		agents = append(agents, connect(t, p, zstdHello(fmt.Sprint("e", i))))
	}
	first := p.setting(t, "one")
	for _, a := range agents {
		a.reaches(first)
		a.leave()
	}
	before := p.compressions(t)
	revision := p.origins(t, "acme", 1998, "http://"+strings.Repeat("a", 450))
	for i := range conflateAfter {
		revision = p.setting(t, fmt.Sprint("host", i))
	}
	p.reach(t, revision)
	_, release := p.feed.Share(p.feed.View(), first, first) // kept for as long as the test takes
	defer release()
	for i, a := range agents {
		agents[i] = connect(t, p, a.resume(), holding(a))
	}
	for _, a := range agents {
		a.reaches(revision)
		a.leave()
	}
	chunks := p.compressions(t) - before
	for _, a := range agents {
		if a.edge.Fulls > 0 || a.edge.CatchUps != 1 || a.edge.Compressed != chunks || chunks < 4 {
			t.Errorf("edge %s: %d full states, %d catch-ups, %d compressed chunks of %d", a.hello.GetId(), a.edge.Fulls, a.edge.CatchUps,
				a.edge.Compressed, chunks)
		}
	}
}

// An edge may share a state from before it connected. It gets a bookmark only after what was there
// when it connected.
func TestSharedStateIsFollowedByWhatIsMissing(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), func(s *Service) { s.timing.bookmarkEvery = time.Millisecond })
	p.origins(t, "acme", 1998, "http://"+strings.Repeat("a", 450))
	p.reach(t, p.origins(t, "globex", 1998, "http://"+strings.Repeat("a", 450)))
	_, release := p.feed.Share(p.feed.View(), 0, 0) // kept for as long as the test takes
	defer release()
	p.clock.stop()
	connect(t, p, zstdHello("e1")).until("a full state",
		func(e *feedtest.Edge) bool { return e.Fulls == 1 && e.Revision > 0 })
	chunks := p.compressions(t)
	revision := p.setting(t, "two")
	p.reach(t, revision)

	quiet := connect(t, p, zstdHello("quiet"), silent) // its window is full after the state
	quiet.until("a full state", func(e *feedtest.Edge) bool { return e.Revision > 0 })
	for range 3 {
		quiet.bookmark()
	}
	quiet.leave()
	if end := quiet.message("*edgev1.SyncResponse_End").GetEnd(); end.GetTarget() >= revision ||
		quiet.edge.Bookmarks > 0 {
		t.Errorf("a state to %d was shared; a bookmark said that nothing is missing: %v", end.GetTarget(), quiet.edge.Bookmarks > 0)
	}

	a := connect(t, p, zstdHello("e2"))
	a.until("a bookmark", func(e *feedtest.Edge) bool { return e.Bookmarks > 0 })
	a.leave()
	if a.edge.Revision < revision {
		t.Errorf("nothing is missing at %d, it was said, though %d was there", a.edge.Revision, revision)
	}
	if n := p.compressions(t); n != chunks {
		t.Errorf("%d chunks were compressed, want %d", n, chunks)
	}
}
