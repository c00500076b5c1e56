package edgesvc

import (
	"testing"

	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/await"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A change of the settings reaches the edges that are connected, before the step that it is, and
// also those that the rollout holds back.
func TestSettingsReachEdges(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), quickBookmarks)
	p.origins(t, "acme", 1, "http://first")
	tell := func(thumbprint string) int64 {
		t.Helper()
		return repeat(t, func() (int64, error) {
			change := func(s *topologyv1.Settings) { s.AcmeThumbprint = thumbprint }
			return p.store.ChangeSettings(t.Context(), nil, change)
		})
	}
	first := tell("FIRST")
	p.reach(t, first)
	free := connect(t, p, hello("free"))
	h := hello("frozen")
	h.Region = "us"
	frozen := connect(t, p, h)
	for _, a := range []*agent{free, frozen} {
		a.reaches(first)
		welcome := a.message("*edgev1.SyncResponse_Welcome").GetWelcome()
		if got := welcome.GetSettings().GetAcmeThumbprint(); got != "FIRST" {
			t.Errorf("%s was welcomed with %q", a.hello.GetId(), got)
		}
	}
	p.freeze(t, "us", 0)
	await.True(t, "the freeze to be known", func() bool { return p.frozen("us") })
	second := tell("SECOND")
	free.reaches(second)
	free.mu.Lock()
	got := free.last["*edgev1.SyncResponse_Settings"].GetSettings().GetAcmeThumbprint()
	free.mu.Unlock()
	if got != "SECOND" {
		t.Errorf("an edge reached revision %d with the thumbprint %q", second, got)
	}
	if got := frozen.message("*edgev1.SyncResponse_Settings").GetSettings().GetAcmeThumbprint(); got != "SECOND" {
		t.Errorf("an edge that is held back was told %q", got)
	}
	frozen.staysBefore(second)
}
