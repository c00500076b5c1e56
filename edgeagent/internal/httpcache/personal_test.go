package httpcache

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A crowd of people, each with a session and credentials of their own, asks for one URL all at
// once, while the reply is fetched, goes stale, is revalidated and fails. Whatever the origin says
// of the reply short of "public", nobody is given another's.
func TestNobodyIsGivenAnothersReply(t *testing.T) {
	t.Parallel()
	for _, field := range []string{"Authorization", "Cookie", "X-Session"} {
		for _, cacheControl := range []string{
			"", "max-age=10", "max-age=10, stale-while-revalidate=60", "no-cache", "private, max-age=10", "no-store",
		} {
			t.Run(field+" "+cacheControl, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				a := r.addOrigin("a")
				r.setOrigin("a", &topologyv1.WebOrigin{BaseUrl: a.url, ForwardRequestHeaders: []string{field}})
				r.apply()
				a.reply("/me", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
					who := req.Header.Get(field)
					n, _ := strconv.Atoi(who)
					h := w.Header()
					h.Set("Etag", `"`+who+`"`)
					if cacheControl != "" {
						h.Set("Cache-Control", cacheControl)
					}
					switch {
					case n%7 == 3:
						w.WriteHeader(http.StatusForbidden)
					case n%7 == 4:
						w.WriteHeader(http.StatusNotFound)
					case req.Header.Get("If-None-Match") == h.Get("Etag"):
						w.WriteHeader(http.StatusNotModified)
					default:
						fmt.Fprint(w, "for ", who)
					}
				}})
				for range 4 {
					var crowd sync.WaitGroup
					for i := range 40 {
						who := itoa(i % 20)
						method := []string{"GET", "HEAD"}[i/20]
						crowd.Go(func() {
							reply := r.serve(method, "/me", http.Header{field: {who}})
							body, err := read(reply)
							if err != nil {
								t.Error(err)
							}
							n, _ := strconv.Atoi(who)
							refused := n%7 == 3 || n%7 == 4
							if etag := header(reply, "Etag"); etag != "" && etag != `"`+who+`"` ||
								(reply.Status == 200) == refused {
								t.Errorf("%s of %s: %d %s", method, who, reply.Status, etag)
							}
							if method == "GET" && reply.Status == 200 && body != "for "+who {
								t.Errorf("%s was given what is %s", who, body)
							}
						})
					}
					crowd.Wait()
					r.idle()
					r.clock.add(11 * time.Second)
				}
			})
		}
	}
}

// Those who are each to get a reply of their own do not wait for one another.
func TestPersonalRepliesAreFetchedSideBySide(t *testing.T) {
	t.Parallel()
	const crowd = 10
	r := newRig(t)
	a := r.addOrigin("a")
	r.setOrigin("a", &topologyv1.WebOrigin{BaseUrl: a.url, ForwardRequestHeaders: []string{"Cookie"}})
	r.apply()
	var asked sync.WaitGroup
	asked.Add(crowd)
	a.reply("/me", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
		asked.Done()
		asked.Wait()
		fmt.Fprint(w, "for ", req.Header.Get("Cookie"))
	}})
	var all []<-chan fetched
	for i := range 3 * crowd {
		all = append(all, r.fetching(bg, "/me", http.Header{"Cookie": {itoa(i % crowd)}}))
	}
	for i, done := range all {
		if got := <-done; got.body != "for "+itoa(i%crowd) || got.err != nil {
			t.Errorf("%d got %q, %v", i%crowd, got.body, got.err)
		}
	}
}

// A reply whose origin says that it is for everybody is fetched with one client's credentials and
// given to all, ranges that come straight from the supplier are asked for with the client's own.
func TestPublicReplyIsSharedBeyondItsCredentials(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	r.setOrigin("a", &topologyv1.WebOrigin{BaseUrl: a.url, ForwardRequestHeaders: []string{"Authorization"}})
	r.apply()
	g := newGate(pattern(20<<20), http.Header{"Cache-Control": {"public, max-age=60"}, "Etag": {`"1"`}})
	a.reply("/x", g.reply())
	ann := r.fetching(bg, "/x", http.Header{"Authorization": {"ann"}})
	bob := r.fetching(bg, "/x", http.Header{"Authorization": {"bob"}})
	r.users("/x", 2)
	g.head <- struct{}{}
	g.more <- 1 << 20
	r.published("/x")
	a.requests()
	far := <-r.fetching(bg, "/x", http.Header{"Authorization": {"cid"}, "Range": {"bytes=15728640-15728649"}})
	if got := a.last.Get("Authorization"); got != "cid" || a.requests() != 1 ||
		far.body != string(g.body[15<<20:15<<20+10]) {
		t.Errorf("a far range of one was asked for with the credentials of %q: %v", got, far.err)
	}
	g.more <- 20 << 20
	for _, done := range []<-chan fetched{ann, bob} {
		if got := <-done; got.body != string(g.body) || got.err != nil {
			t.Errorf("%d bytes, %v", len(got.body), got.err)
		}
	}
	if n := a.requests(); n != 0 {
		t.Errorf("%d more requests", n)
	}
}

// What somebody without credentials was given is not what those with credentials get, unless the
// origin says that it is for everybody; nor is it lost to those without.
func TestCredentialsAreNotAnsweredWithWhatAnybodyGets(t *testing.T) {
	t.Parallel()
	for cacheControl, shared := range map[string]bool{
		"": false, "max-age=60": false, "private": false, "no-cache": false,
		"public, max-age=60": true, "s-maxage=60": true, "max-age=60, must-revalidate": true,
	} {
		for _, mode := range []topologyv1.CachePolicy_Mode{
			topologyv1.CachePolicy_RESPECT, topologyv1.CachePolicy_OVERRIDE, topologyv1.CachePolicy_MINIMUM,
		} {
			for _, method := range []string{"GET", "HEAD"} {
				t.Run(fmt.Sprint(cacheControl, " ", mode, " ", method), func(t *testing.T) {
					t.Parallel()
					r := newRig(t)
					a := r.addOrigin("a")
					r.setOrigin("a",
						&topologyv1.WebOrigin{BaseUrl: a.url, ForwardRequestHeaders: []string{"Authorization"}})
					r.endpoint.Cache = &topologyv1.CachePolicy{Mode: mode, DefaultTtl: durationpb.New(time.Minute)}
					r.apply()
					a.reply("/me", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
						if cacheControl != "" {
							w.Header().Set("Cache-Control", cacheControl)
						}
						w.Header().Set("X-For", "<"+req.Header.Get("Authorization")+">")
						fmt.Fprint(w, "file")
					}})
					for _, who := range []string{"", "ann", "", "bob", "ann"} {
						h := http.Header{}
						want := ""
						if who != "" {
							h.Set("Authorization", who)
						}
						if !shared {
							want += who
						}
						reply := r.serve(method, "/me", h)
						if got := header(reply, "X-For"); got != "<"+want+">" {
							t.Errorf("%q was given what is %q, want %q", who, got, want)
						}
						if _, err := read(reply); err != nil {
							t.Error(err)
						}
						r.idle()
					}
				})
			}
		}
	}
}

// A revalidation that makes a shared reply one person's ends the sharing for those who waited with
// them, too.
func TestReplyThatBecomesPersonalWhileOthersWait(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	r.setOrigin("a", &topologyv1.WebOrigin{BaseUrl: a.url, ForwardRequestHeaders: []string{"Authorization"}})
	r.apply()
	release := make(chan struct{})
	personal := false
	a.reply("/x", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Etag", `"1"`)
		if !personal {
			h.Set("Cache-Control", "public, max-age=10")
			fmt.Fprint(w, "all")
			return
		}
		<-release
		h.Set("Cache-Control", "private")
		if req.Header.Get("Authorization") == "ann" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Etag", `"2"`)
		fmt.Fprint(w, "not ann's")
	}})
	r.fetch("/x", nil)
	r.idle()
	personal = true
	r.clock.add(11 * time.Second)
	ann := r.fetching(bg, "/x", http.Header{"Authorization": {"ann"}})
	r.users("/x", 1)
	bob := r.fetching(bg, "/x", http.Header{"Authorization": {"bob"}})
	r.users("/x", 2)
	close(release)
	if got := <-ann; got.body != "all" {
		t.Errorf("she got %q", got.body)
	}
	if got := <-bob; got.body != "not ann's" {
		t.Errorf("he got %q", got.body)
	}
}
