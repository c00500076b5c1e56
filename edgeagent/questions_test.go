package edgeagent

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// An explanation says where a URL leads as a browser would send it, and why it leads nowhere.
func TestExplainLocates(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/x" && r.URL.Path != "/home/" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(origin.Close)
	l := newLone(t)
	if e := l.explain(t.Context(), "http://shared.test/acme/x", ""); e.GetStatus() != 503 ||
		e.GetHost() != "shared.test" || e.GetEnding() != "no topology has arrived yet" {
		t.Errorf("before the first topology: %v", e)
	}
	all := shop(origin.URL)
	all["customDomains/acme/img.test"] = &topologyv1.CustomDomain{
		Domain: "img.test", Mode: topologyv1.CustomDomain_ACCOUNT, State: topologyv1.CustomDomain_ACTIVE,
	}
	all["accounts/home"] = &topologyv1.Account{State: topologyv1.Account_ACTIVE}
	all["origins/home/files"] = &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{
		BaseUrl: origin.URL + "/home",
	}}}
	all["urlEndpoints/home/default"] = &topologyv1.UrlEndpoint{Origins: []string{"files"}}
	l.step(true, all)
	for _, test := range []struct{ url, want string }{
		{"http://shared.test/acme/x", `shared.test acme default "/x" "" 200 found at files`},
		{"SHARED.test:8080/acme/x?w=1#top", `shared.test acme default "/x" "w=1" 200 found at files`},
		{"HTTPS://Img.Test.:443/a/../%78", `img.test acme default "/x" "" 200 found at files`},
		{"https://img.test/y", `img.test acme default "/y" "" 404 every step says no`},
		{"http://shared.test/acme", `shared.test acme default "" "" 404 an account alone is no file, and there is none at /acme/`},
		{"http://shared.test/home", `shared.test home default "" "" 301 found at files, at /home/, which an account alone leads to`},
		{"http://Elsewhere.test:8080/x", `elsewhere.test   "" "" 404 no account has the host elsewhere.test`},
		{"https://elsewhere.test:8443/x", `elsewhere.test   "" "" 421 no account has the host elsewhere.test`},
		{"http://shared.test:8080/nobody/x", `shared.test   "" "" 404 no such account: nobody`},
		{"http://shared.test:8080/acme/../../x", `shared.test   "" "" 400 the path climbs above the root`},
		{"http:///x", `   "" "" 400 this is no URL: write https://host/path, or host/path`},
		{"", `   "" "" 400 this is no URL: write https://host/path, or host/path`},
	} {
		e := l.explain(t.Context(), test.url, "")
		if got := fmt.Sprintf(
			"%s %s %s %q %q %d %s", e.GetHost(), e.GetAccount(), e.GetUrlEndpoint(), e.GetPath(), e.GetQuery(),
			e.GetStatus(), e.GetEnding(),
		); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.url, got, test.want)
		}
	}
	for url, want := range map[string]string{
		"http://shared.test/acme/x":   "200 acme found at files",
		"http://shared.test/home/x":   "404  it does not lead to the account",
		"http://shared.test/nobody/x": "404  no such account: nobody",
	} {
		e := l.explain(t.Context(), url, "acme")
		if got := fmt.Sprintf("%d %s %s", e.GetStatus(), e.GetAccount(), e.GetEnding()); got != want ||
			e.GetAccount() == "" && len(e.GetSteps()) > 0 {
			t.Errorf("%s, for acme:\ngot  %s\nwant %s", url, got, want)
		}
	}
	if n := l.store.Stats().Objects; n != 0 {
		t.Errorf("explaining stored %d objects", n)
	}
}

// What an origin had not got under another history says nothing: its place may be another's.
func TestMissesEndWithTheirHistory(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(origin.Close)
	l := newLone(t)
	all := func() map[string]proto.Message { return shop(origin.URL) }
	l.revision = 100
	l.step(true, all())
	for _, step := range []struct {
		epoch, path string
		asked       int64
	}{{"one", "/x", 1}, {"one", "/x?", 1}, {"two", "/x", 2}, {"two", "/x", 2}} {
		if step.epoch != l.epoch {
			l.epoch, l.revision = step.epoch, 1
			l.step(true, all())
		}
		if status, _, _ := l.get(step.path); status != 404 || asked.Load() != step.asked {
			t.Errorf("%v: %d, asked %d times", step, status, asked.Load())
		}
	}
}

// An origin that stalls for longer than anybody asks is named as what holds the answer up, in time.
func TestAnswersComeInTime(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-gone:
		}
	}))
	t.Cleanup(origin.Close)
	t.Cleanup(func() { close(gone) })
	l := newLone(t)
	all := shop(origin.URL)
	minute := durationpb.New(time.Minute)
	files := all["origins/acme/files"].(*topologyv1.Origin)
	files.Timeouts = &topologyv1.OriginTimeouts{FirstByte: minute}
	all["urlEndpoints/acme/default"].(*topologyv1.UrlEndpoint).WalkDeadline = minute
	l.step(true, all)
	for name, ask := range map[string]*edgev1.Ask{
		"explain": {Question: &edgev1.Ask_Explain_{Explain: &edgev1.Ask_Explain{Url: "http://shared.test/acme/x"}}},
		"test-origin": {Question: &edgev1.Ask_TestOrigin_{TestOrigin: &edgev1.Ask_TestOrigin{
			Origin: files, Path: "/x",
		}}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		a := l.answer(ctx, ask)
		if ctx.Err() != nil {
			t.Errorf("%s: too late", name)
		}
		cancel()
		step := a.GetTestOrigin().GetStep()
		if steps := a.GetExplain().GetSteps(); len(steps) == 2 {
			step = steps[1]
		}
		if step.GetReason() != "timeout" || step.GetDetail() != "no answer within the time that there was to ask" ||
			step.GetAdvice() != "have the origin answer sooner" {
			t.Errorf("%s: %v", name, a)
		}
	}
}
