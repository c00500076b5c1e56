package origin

import (
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// "3xx from a web origin: followed, at most 3 hops, each checked like the first, secrets and
// request_headers never to another host; else INCONCLUSIVE config with the Location".
func TestRedirects(t *testing.T) {
	t.Parallel()
	file := faultorigin.Reply(200, "the file")
	for _, test := range []struct {
		name    string
		script  map[string]faultorigin.Answer
		change  func(*topologyv1.WebOrigin)
		outcome Outcome
		reason  Reason
		detail  string // a part of it
	}{
		{name: "one hop", outcome: Found,
			script: map[string]faultorigin.Answer{"/a.jpg": faultorigin.Redirect(302, "/b.jpg"), "/b.jpg": file}},
		{
			name: "relative", outcome: Found,
			script: map[string]faultorigin.Answer{
				"/a.jpg": faultorigin.Redirect(301, "b%20c/d.jpg?x=1"), "/b%20c/d.jpg": file,
			},
		},
		{
			name: "with a stray percent", outcome: Found,
			script: map[string]faultorigin.Answer{
				"/a.jpg": faultorigin.Redirect(302, "/100%.jpg?q=5%"), "/100%25.jpg": file,
			},
		},
		{
			name: "with a bad escape", outcome: Found,
			script: map[string]faultorigin.Answer{
				"/a.jpg": faultorigin.Redirect(302, "b/%zz%20%C3%A9.jpg"), "/b/%25zz%20%C3%A9.jpg": file,
			},
		},
		{name: "three hops", outcome: Found, script: map[string]faultorigin.Answer{
			"/a.jpg": faultorigin.Redirect(301, "/1"), "/1": faultorigin.Redirect(307, "/2"),
			"/2": faultorigin.Redirect(308, "/3"), "/3": file}},
		{name: "four hops", reason: Misconfigured, detail: "after 3 redirects", script: map[string]faultorigin.Answer{
			"/a.jpg": faultorigin.Redirect(301, "/1"), "/1": faultorigin.Redirect(303, "/2"),
			"/2": faultorigin.Redirect(302, "/3"), "/3": faultorigin.Redirect(302, "/4"), "/4": file}},
		{name: "loop", reason: Misconfigured, detail: "to /a.jpg",
			script: map[string]faultorigin.Answer{"/a.jpg": faultorigin.Redirect(301, "/a.jpg")}},
		{name: "to a missing file", outcome: NotHere,
			script: map[string]faultorigin.Answer{"/a.jpg": faultorigin.Redirect(302, "/gone")}},
		{name: "to a login page", outcome: NotHere, reason: SoftNotFound,
			script: map[string]faultorigin.Answer{"/a.jpg": faultorigin.Redirect(302, "/login"), "/login": page}},
		{
			name: "to a fault", reason: Failed,
			script: map[string]faultorigin.Answer{
				"/a.jpg": faultorigin.Redirect(302, "/b"), "/b": faultorigin.Reply(500, ""),
			},
		},
		{name: "not followed", reason: Misconfigured, detail: "to http://elsewhere.test/b.jpg?...",
			script: map[string]faultorigin.Answer{"/a.jpg": faultorigin.Redirect(
				302, "http://elsewhere.test/b.jpg?X-Amz-Signature="+theSecret,
			)},
			change: func(w *topologyv1.WebOrigin) { w.FollowRedirects = new(bool) }},
		{name: "to a file of this machine", reason: Misconfigured, detail: "to file:///etc/passwd",
			script: map[string]faultorigin.Answer{"/a.jpg": faultorigin.Redirect(302, "file:///etc/passwd")}},
		{
			name: "with a user", reason: Misconfigured,
			script: map[string]faultorigin.Answer{"/a.jpg": faultorigin.Redirect(
				302, "http://u:"+theSecret+"@127.0.0.1/",
			)},
		},
		{name: "to nonsense", reason: Misconfigured,
			script: map[string]faultorigin.Answer{"/a.jpg": faultorigin.Redirect(302, "http://[::1/%zz")}},
		{name: "to another loopback address", reason: Misconfigured,
			script: map[string]faultorigin.Answer{"/a.jpg": faultorigin.Redirect(302, "http://127.0.0.2:1/")}},
		{
			name: "to the metadata service", reason: Misconfigured,
			script: map[string]faultorigin.Answer{"/a.jpg": faultorigin.Redirect(
				302, "http://169.254.169.254/latest/meta-data/",
			)},
		},
		{name: "to the metadata service in IPv6 dress", reason: Misconfigured,
			script: map[string]faultorigin.Answer{"/a.jpg": faultorigin.Redirect(
				302, "http://[::ffff:a9fe:a9fe]/latest/meta-data/",
			)}},
		{name: "to nowhere", reason: Misconfigured,
			script: map[string]faultorigin.Answer{"/a.jpg": faultorigin.Redirect(302, "http://0.0.0.0/")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			for path, answer := range test.script {
				fault.On(path, answer)
			}
			o := webOrigin(t, fault.URL(), webSpec(func(w *topologyv1.WebOrigin) {
				if test.change != nil {
					test.change(w)
				}
			}))
			a := localClient(t).Get(t.Context(), o, get("/a.jpg"))
			discard(t, a)
			if a.Outcome != test.outcome || a.Reason != test.reason || !strings.Contains(a.Detail, test.detail) {
				t.Errorf("got %s %q: %s, want %s %q: %s", a.Outcome, a.Reason, a.Detail, test.outcome, test.reason,
					test.detail)
			}
			for _, r := range fault.Requests() {
				if r.Header.Get("X-Api-Key") != theSecret {
					t.Errorf("%s of the origin's own host was not sent the key", r.Target)
				}
			}
		})
	}
}

// Once a chain has left the origin's host it gets no secret any more, not even back home.
func TestRedirectKeepsSecretsHome(t *testing.T) {
	t.Parallel()
	home, away := faultorigin.New(t), faultorigin.New(t)
	home.On("/a.jpg", faultorigin.Redirect(302, away.URL()+"/b.jpg?x=%20"))
	away.On("/b.jpg", faultorigin.Redirect(302, home.URL()+"/c.jpg"))
	home.On("/c.jpg", faultorigin.Reply(200, "x"))
	o := webOrigin(t, home.URL(), webSpec(func(w *topologyv1.WebOrigin) {
		w.ForwardRequestHeaders, w.ForwardHostHeader = []string{"authorization", "cookie"}, true
	}))
	ask := get("/a.jpg")
	ask.Header = header("Authorization", "Basic "+theSecret, "Cookie", theSecret, "Accept", "image/webp",
		"Accept-Encoding", "gzip")
	a := localClient(t).Get(t.Context(), o, ask)
	discard(t, a)
	if a.Outcome != Found {
		t.Fatalf("got %s: %s", a.Outcome, a.Detail)
	}
	first := home.Requests()[0]
	if h := first.Header; h.Get("Authorization") == "" || h.Get("Cookie") == "" || h.Get("X-Api-Key") != theSecret ||
		first.Host != "images.example.com" {
		t.Errorf("home was sent %q %v", first.Host, h)
	}
	for i, r := range []faultorigin.Request{away.Requests()[0], home.Requests()[1]} {
		for name, values := range r.Header {
			switch name {
			case "Accept", "Accept-Encoding", "User-Agent", "Via", "Cdn-Loop":
			default:
				t.Errorf("hop %d was sent %s: %q", i+2, name, values)
			}
		}
		if r.Host != []string{away.Host(), home.Host()}[i] {
			t.Errorf("hop %d was sent Host %q", i+2, r.Host)
		}
	}
	if got := away.Requests()[0].Target; got != "/b.jpg?x=%20" {
		t.Errorf("asked for %q", got)
	}
}

// An origin that is sent the client's host calls itself by it; that is no other host.
func TestRedirectToForwardedHost(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On("/a.jpg", faultorigin.Redirect(301, "http://images.example.com/b.jpg"))
	fault.On("/b.jpg", faultorigin.Reply(200, "x"))
	o := webOrigin(t, fault.URL(), webSpec(func(w *topologyv1.WebOrigin) { w.ForwardHostHeader = true }))
	a := localClient(t).Get(t.Context(), o, get("/a.jpg"))
	discard(t, a)
	if r := saw(t, fault, 2)[1]; a.Outcome != Found || r.Host != "images.example.com" ||
		r.Header.Get("X-Api-Key") != theSecret {
		t.Errorf("got %s: %s; sent %q %v", a.Outcome, a.Detail, r.Host, r.Header)
	}
}

func TestSameHost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		from, to string
		want     bool
	}{
		{"http://a/x", "http://a/y", true},
		{"http://a/x", "http://A:80/y", true},
		{"https://a/x", "https://a:443/y", true},
		{"http://a/x", "https://a/y", true},
		{"http://a:80/x", "https://a:443/y", true},
		{"https://a/x", "http://a/y", false},
		{"http://a:8080/x", "https://a/y", false},
		{"http://a/x", "https://a:8443/y", false},
		{"http://a/x", "http://a:81/y", false},
		{"http://a/x", "http://b.a/y", false},
		{"http://a/x", "http://a./y", false},
	} {
		if got := kind.SameHost(mustURL(t, test.from), mustURL(t, test.to)); got != test.want {
			t.Errorf("%s and %s: %v", test.from, test.to, got)
		}
	}
}
