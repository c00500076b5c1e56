package controlplane

import (
	"bufio"
	"encoding/json"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"
)

// event is one of a stream.
type event struct {
	name string
	data map[string]any
}

// watch begins to watch the edges. The channel ends with the stream, with an event `cut` if that
// has broken off.
func (a *api) watch(t *testing.T) (<-chan event, func()) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.base+"/v1/edges:watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.token != "" {
		r.Header.Set("Authorization", a.token)
	}
	r.Header.Set("Accept", "text/event-stream")
	resp, err := a.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream begins with %s and %v", resp.Status, resp.Header)
	}
	out := make(chan event, 100)
	go func() {
		defer close(out)
		var one event
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch {
			case name == "event":
				one.name = value
			case name == "data":
				_ = json.Unmarshal([]byte(value), &one.data)
			case one.name != "":
				out <- one
				one = event{}
			}
		}
		if lines.Err() != nil {
			out <- event{name: "cut"}
		}
	}()
	stop := func() { resp.Body.Close() }
	t.Cleanup(stop)
	return out, stop
}

// next waits for an event that fits.
func next(t *testing.T, events <-chan event, what string, fits func(event) bool) event {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("the stream ended before %s", what)
			}
			if fits(e) {
				return e
			}
		case <-late:
			t.Fatalf("no %s within 30 s", what)
		}
	}
}

func named(name string) func(event) bool { return func(e event) bool { return e.name == name } }

// TestRESTWatch holds that who watches the edges sees changes arrive, until his token ends.
func TestRESTWatch(t *testing.T) {
	r := start(t, loopbackConfig(t.TempDir()))
	root := apiOf(t, r)
	made := root.want(201, "POST", "/v1/tokens", `{"role": "OPERATOR", "account": "*"}`)
	operator := *root
	text, _ := made.at("text").(string)
	operator.token = "Bearer " + text
	operator.client = &http.Client{Transport: new(http.Transport)}
	defer operator.client.CloseIdleConnections()

	operator.want(406, "GET", "/v1/edges:watch", "", "Accept", "application/json")
	operator.want(405, "POST", "/v1/edges:watch", "", "Accept", "text/event-stream")
	operator.want(400, "GET", "/v1/edges:watch?region=eu", "", "Accept", "text/event-stream")
	nobody := *root
	nobody.token = ""
	nobody.want(401, "GET", "/v1/edges:watch", "", "Accept", "text/event-stream")
	root.want(201, "POST", "/v1/accounts?accountId=acme", `{}`)
	viewer := root.want(201, "POST", "/v1/tokens", `{"role": "VIEWER", "account": "accounts/acme"}`)
	text, _ = viewer.at("text").(string)
	nobody.token = "Bearer " + text
	nobody.want(403, "GET", "/v1/edges:watch", "", "Accept", "text/event-stream")

	events, _ := operator.watch(t)
	next(t, events, "reset", named("reset"))
	next(t, events, "revision", named("revision"))
	e := r.connect(t, nil)
	next(t, events, "edge that is connected", func(e event) bool {
		return e.name == "edge" && e.data["id"] == "edge-1" && e.data["connected"] == true
	})
	made = root.want(201, "POST", "/v1/accounts/acme/origins?originId=o", `{"web": {"baseUrl": "http://o.example"}}`)
	revision, _ := made.at("revision").(string)
	next(t, events, "revision of the write", func(e event) bool {
		return e.name == "revision" && e.data["revision"] == revision
	})
	e.until(t, r.feed.Revision())
	next(t, events, "edge that has applied it", func(e event) bool {
		return e.name == "edge" && e.data["appliedRevision"] == revision
	})

	tokens, _ := root.want(200, "GET", "/v1/tokens", "").at("tokens").([]any)
	for _, one := range tokens {
		token, _ := one.(map[string]any)
		if token["role"] == "OPERATOR" {
			name, _ := token["name"].(string)
			root.want(200, "DELETE", "/v1/"+name, "")
		}
	}
	end := next(t, events, "end", named("end"))
	if message, _ := end.data["message"].(string); !strings.Contains(message, "revoked") {
		t.Errorf("the stream ends with %v", end.data)
	}
	if _, more := <-events; more {
		t.Error("the stream goes on after its end")
	}
}

// TestRESTWatchGoroutines holds that a viewer costs the goroutine of its request, and what net/http
// needs for a connection, and that nothing stays of it.
func TestRESTWatchGoroutines(t *testing.T) {
	r := start(t, loopbackConfig(t.TempDir()))
	root := apiOf(t, r)
	root.client = &http.Client{Transport: new(http.Transport)}
	defer root.client.CloseIdleConnections()
	root.want(200, "GET", "/v1/revision", "")
	const viewers = 20
	before := runtime.NumGoroutine()
	var stops []func()
	for range viewers {
		events, stop := root.watch(t)
		next(t, events, "revision", named("revision"))
		stops = append(stops, stop)
	}
	watching := func() int { return goroutinesIn(".(*Handler).watchEdges(") }
	if n := watching(); n != viewers {
		t.Errorf("%d viewers have %d goroutines", viewers, n)
	}
	// net/http has one more a connection, which sees it end. Here the client has some too: two of
	// its connection, and the reader of events.
	if all := runtime.NumGoroutine() - before; all > viewers*(2+3)+10 {
		t.Errorf("%d viewers have %d goroutines at both ends", viewers, all)
	}
	for _, stop := range stops {
		stop()
	}
	await.True(t, "the viewers are gone", func() bool { return watching() == 0 })
}

// goroutinesIn counts the goroutines that are in a function.
func goroutinesIn(function string) int {
	buf := make([]byte, 8<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), function)
}

// TestRESTWatchDrains holds that a control plane that ends does not wait for viewers.
func TestRESTWatchDrains(t *testing.T) {
	r := start(t, loopbackConfig(t.TempDir()))
	root := apiOf(t, r)
	root.client = &http.Client{Transport: new(http.Transport)}
	defer root.client.CloseIdleConnections()
	events, _ := root.watch(t)
	next(t, events, "revision", named("revision"))
	r.stop(t)
	for e := range events {
		if e.name == "cut" {
			t.Error("the stream was cut, not ended")
		}
	}
}
