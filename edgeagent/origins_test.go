package edgeagent

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A request that comes back to the deployment it went out from is refused; one that another
// deployment sends on is not.
func TestLoops(t *testing.T) {
	t.Parallel()
	var seen http.Header
	origin := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header }))
	t.Cleanup(origin.Close)
	l := newLone(t)
	l.step(true, shop(origin.URL))
	ask := func(cdnLoop, path string) int {
		t.Helper()
		request := httptest.NewRequest(http.MethodGet, "http://"+l.Addresses().HTTP+"/acme"+path, nil)
		request.RequestURI, request.Host, request.Close = "", "shared.test", true
		request.Header.Set("CDN-Loop", cdnLoop)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	if status := ask("fastly, edgewalk-00000000", "/x"); status != http.StatusOK {
		t.Errorf("from another deployment: %d", status)
	}
	sent := seen.Get("CDN-Loop")
	own, ok := strings.CutPrefix(sent, "fastly, edgewalk-00000000, ")
	if !ok || !strings.HasPrefix(own, "edgewalk-") || len(own) != len("edgewalk-")+8 || seen.Get("Via") != "1.1 "+own {
		t.Errorf("sent CDN-Loop %q, Via %q", sent, seen.Get("Via"))
	}
	if status := ask(sent, "/y"); status != http.StatusLoopDetected {
		t.Errorf("from here: %d", status)
	}
	l.step(false, map[string]proto.Message{"settings": &topologyv1.Settings{SharedHost: "other.test"}})
	if l.loopID() == own {
		t.Error("another deployment has the same id")
	}
}

// No origin leads to a listener of the edge itself, though private addresses are allowed.
func TestOwnListenersAreNoOrigins(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for i, at := range []string{l.Addresses().Metrics, l.Addresses().HTTP} {
		l.step(i == 0, shop("http://"+at))
		l.get("/metrics")
		got := l.report().GetOrigins()
		if len(got) != 1 || !strings.Contains(got[0].GetLastError(), "the edge itself") {
			t.Errorf("%s: reported %v", at, got)
		}
	}
}

// The report names the origins that are not well, and no more once they have left.
func TestReportNamesUnwellOrigins(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(origin.Close)
	l := newLone(t)
	l.step(true, shop(origin.URL))
	if got := l.report().GetOrigins(); len(got) != 0 {
		t.Errorf("before any request: %v", got)
	}
	l.get("/x")
	got := l.report().GetOrigins()
	if len(got) != 1 || got[0].GetAccount() != "acme" || got[0].GetOrigin() != "files" ||
		got[0].GetLastError() != "config: HTTP 403" || got[0].GetBreakerOpen() {
		t.Errorf("reported %v", got)
	}
	l.step(false,
		map[string]proto.Message{"urlEndpoints/acme/default": &topologyv1.UrlEndpoint{}, "origins/acme/files": nil})
	if got := l.report().GetOrigins(); len(got) != 0 {
		t.Errorf("of one that has left: %v", got)
	}
}
