package edgeagent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route/routetest"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
	"github.com/edgewalk/edgewalk/internal/metrictest"
	"github.com/edgewalk/edgewalk/internal/topology/topologytest"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lone is an agent without a control plane: its test gives it the steps.
type lone struct {
	*Agent
	t        *testing.T
	epoch    string
	revision int64
}

func newLone(t *testing.T, change ...func(*Config)) *lone {
	t.Helper()
	cfg := Config{
		ControlPlane: []string{listentest.Unused(t)}, HTTPAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0",
		StateDir: t.TempDir(), CacheSize: 64 << 20, AllowPrivateOrigins: true, Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &lone{Agent: a, t: t, epoch: "one"}
}

// step applies a change at the next revision, nil deleting a resource.
func (l *lone) step(full bool, resources map[string]proto.Message) {
	l.t.Helper()
	l.revision++
	created := l.revision
	if full {
		created = 1 // what there was from the start
	}
	records := topologytest.Records(l.t, created, l.revision, resources)
	result, err := l.table.Apply(route.Step{
		Full: full, Epoch: l.epoch, Revision: l.revision, Records: routetest.Records(records...),
	})
	if err != nil || len(result.Rejected) > 0 {
		l.t.Fatalf("apply: %v, rejected %v", err, result.Rejected)
	}
}

// shop is a topology of one account whose one origin is at a URL.
func shop(originURL string) map[string]proto.Message {
	return map[string]proto.Message{
		"settings":      &topologyv1.Settings{SharedHost: "shared.test"},
		"accounts/acme": &topologyv1.Account{State: topologyv1.Account_ACTIVE},
		"origins/acme/files": &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{
			BaseUrl: originURL,
		}}},
		"urlEndpoints/acme/default": &topologyv1.UrlEndpoint{Origins: []string{"files"}},
	}
}

// get asks for a path of acme and waits until what came of it is stored. how is the edge's
// Cache-Status.
func (l *lone) get(path string) (status int, body, how string) {
	l.t.Helper()
	request, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, "http://"+l.Addresses().HTTP+"/acme"+path,
		nil)
	if err != nil {
		l.t.Fatal(err)
	}
	request.Host, request.Close = "shared.test", true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		l.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); l.filling(); runtime.Gosched() {
		if time.Now().After(deadline) {
			l.t.Fatal("a fill does not end")
		}
	}
	return response.StatusCode, string(text), response.Header.Get("Cache-Status")
}

// filling reports whether a walk or a body is under way.
func (l *lone) filling() bool {
	l.t.Helper()
	n, ok := metrictest.Values(l.t, l.registry)["edgewalk_cache_fills_running"]
	if !ok {
		l.t.Fatal("the metrics do not say whether fills run")
	}
	return n > 0
}

// Purges may have been missed while the machine slept as well as while the process was stopped.
func TestStandingStillIsNoticed(t *testing.T) {
	t.Parallel()
	last := time.Now()
	for what, c := range map[string]struct {
		now  time.Time
		want bool
	}{
		"in time":            {last.Add(stopCheckEvery), false},
		"a little late":      {last.Add(stoppedFor), false},
		"stopped":            {last.Add(stopCheckEvery + stoppedFor), true},
		"asleep":             {asleep(last.Add(stopCheckEvery), time.Hour), true},
		"the clock set back": {asleep(last.Add(stopCheckEvery), -time.Hour), false},
	} {
		if got := stoodStill(last, c.now); got != c.want {
			t.Errorf("%s: stood still is %v", what, got)
		}
	}
	if now := asleep(last, time.Hour); now.Sub(last) != 0 || now.Unix()-last.Unix() != 3600 {
		t.Errorf("a machine asleep for an hour: %v by one clock, %d s by the other", now.Sub(last), now.Unix()-last.Unix())
	}
}

// asleep returns the time after the machine has slept: the wall clock has moved, the monotonic one
// has not. A [time.Time] begins with the seconds of the wall clock, above 30 bits of nanoseconds.
func asleep(at time.Time, slept time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&at)) += uint64(slept/time.Second) << 30
	return at
}

// A step reaches the routing table, the purges and all that was remembered before, in one.
func TestStepsReachEveryPart(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		fmt.Fprint(w, "answer ", asked.Add(1))
	}))
	t.Cleanup(origin.Close)
	l := newLone(t)
	if status, _, _ := l.get("/x"); status != http.StatusServiceUnavailable {
		t.Errorf("before the first topology: %d", status)
	}
	l.revision = 100
	l.step(true, shop(origin.URL))
	want := func(what, wantBody, wantHow string) {
		t.Helper()
		if status, body, how := l.get("/x"); status != 200 || body != wantBody || !strings.Contains(how, wantHow) {
			t.Errorf("%s: %d %q, %s; want %q and %s", what, status, body, how, wantBody, wantHow)
		}
	}
	want("first", "answer 1", "fwd=uri-miss; stored")
	want("second", "answer 1", "; hit")
	purge := &topologyv1.Purge{Kind: topologyv1.Purge_HARD, Scope: &topologyv1.Purge_Everything{Everything: true}}
	l.step(false, map[string]proto.Message{"purges/acme/p": purge})
	want("purged", "answer 2", "fwd=uri-miss; stored")
	want("and then", "answer 2", "; hit")
	l.step(
		false,
		map[string]proto.Message{"purgeFloors/acme": &topologyv1.PurgeFloor{
			StaleBefore: l.revision + 1, DropBefore: l.revision + 1,
		}},
	)
	want("below the floor", "answer 3", "fwd=uri-miss; stored")

	// Another history counts revisions of its own: the purges of this one say nothing about it.
	l.epoch, l.revision = "two", 1
	l.step(true, shop(origin.URL))
	want("another history", "answer 4", "fwd=uri-miss; stored")
	want("and then", "answer 4", "; hit")

	l.step(false,
		map[string]proto.Message{"accounts/acme": nil, "urlEndpoints/acme/default": nil, "origins/acme/files": nil})
	if status, _, _ := l.get("/x"); status != http.StatusNotFound {
		t.Errorf("deleted account: %d", status)
	}
}
