package edgesvc

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed/feedtest"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
)

// All edges of a control plane that was away come back at once, some with what they had and some
// with nothing: no more than so many are sent everything at a time, who is refused comes again, and
// all end with the same.
func TestHerdOfEdgesIsInStepAgain(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), func(s *Service) { s.timing.admissionWait = 20 * time.Millisecond })
	p.reach(t, p.origins(t, "large", 500, "http://"+strings.Repeat("a", 400)))
	edges := 100
	if testing.Short() {
		edges = 30
	}
	refused := 0
	// until waits for what an edge has. One that is refused comes again, with nothing.
	until := func(i int, a *agent, ok func(e *feedtest.Edge) bool) *agent {
		await.True(t, fmt.Sprintf("edge %d is in step", i), func() bool {
			if a.hasEnded() {
				if code := status.Code(a.ends()); code != codes.ResourceExhausted {
					t.Fatalf("edge %d was answered %v", i, a.ends())
				}
				refused++
				a = connect(t, p, hello(fmt.Sprint("e", i)))
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			return ok(&a.edge)
		})
		return a
	}
	var before []*agent
	for i := range edges {
		a := connect(t, p, hello(fmt.Sprint("e", i)))
		before = append(before, until(i, a, func(e *feedtest.Edge) bool { return e.Revision > 0 }))
	}
	for _, a := range before {
		a.leave()
	}
	last := p.setting(t, "changed")
	p.reach(t, last)
	others := int64(2*runtime.GOMAXPROCS(0) - 1)
	// So that one turn is left, on a machine of any size.
	await.True(t, "all turns are given back", func() bool { return p.full.TryAcquire(others) })
	defer p.full.Release(others)
	var burst []*agent
	for i, a := range before {
		if i%2 == 0 {
			burst = append(burst, connect(t, p, a.resume(), holding(a)))
		} else {
			burst = append(burst, connect(t, p, hello(fmt.Sprint("e", i))))
		}
	}
	for i, a := range burst {
		came := a
		a = until(i, a, func(e *feedtest.Edge) bool { return e.Revision >= last })
		a.mu.Lock()
		if want, ok := p.feed.View().DigestAt(a.edge.Revision); ok && want != a.edge.Digest {
			t.Errorf("edge %d holds something else than the store", i)
		}
		if i%2 == 0 && (a != came || a.edge.Fulls != 0) {
			t.Errorf("edge %d, which had everything but the last step, was sent everything", i)
		}
		a.mu.Unlock()
	}
	t.Logf("%d edges, refused %d times", edges, refused)
}
