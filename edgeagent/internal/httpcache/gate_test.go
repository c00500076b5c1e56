package httpcache

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// gate is an origin's reply that goes on only when its test says so.
type gate struct {
	header http.Header
	body   []byte
	// head lets the head go, more the bytes up to the offset sent.
	head chan struct{}
	more chan int
	// left counts requests whose client, the edge, went away early.
	left chan struct{}
}

func newGate(body []byte, header http.Header) *gate {
	return &gate{
		header: header, body: body, head: make(chan struct{}), more: make(chan int), left: make(chan struct{}, 100),
	}
}

func (g *gate) reply() *originReply { return &originReply{handle: g.serve} }

func (g *gate) serve(w http.ResponseWriter, r *http.Request) {
	for name, values := range g.header {
		w.Header()[name] = values
	}
	wait := func() bool {
		select {
		case <-g.head:
			return true
		case <-r.Context().Done():
			g.left <- struct{}{}
			return false
		}
	}
	if r.Header.Get("Range") != "" {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(g.body))
		return
	}
	if !wait() {
		return
	}
	w.Header().Set("Content-Length", itoa(len(g.body)))
	for sent := 0; sent < len(g.body); {
		select {
		case end := <-g.more:
			if end < 0 {
				panic(http.ErrAbortHandler)
			}
			if end = min(end, len(g.body)); end > sent {
				if _, err := w.Write(g.body[sent:end]); err != nil {
					g.left <- struct{}{}
					return
				}
				_ = http.NewResponseController(w).Flush()
				sent = end
			}
		case <-r.Context().Done():
			g.left <- struct{}{}
			return
		}
	}
}

// fetched is what a client got.
type fetched struct {
	reply *Reply
	body  string
	err   error
}

func (r *rig) fetching(ctx context.Context, url string, h http.Header) <-chan fetched {
	done := make(chan fetched, 1)
	request := r.request("GET", url, h)
	go func() {
		reply := r.cache.Serve(ctx, request)
		body, err := read(reply)
		done <- fetched{reply, body, err}
	}()
	return done
}

// users waits until n requests wait for or read from the fills of a URL.
func (r *rig) users(url string, n int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d requests use it", n), func() bool {
		users := 0
		for _, f := range r.flying(url) {
			f.mu.Lock()
			users += f.users
			f.mu.Unlock()
		}
		return users == n
	})
}

// published waits until the one fill of a URL has its head.
func (r *rig) published(url string) {
	r.t.Helper()
	eventually(r.t, "the head has come", func() bool {
		all := r.flying(url)
		return len(all) == 1 && all[0].isPublished()
	})
}

func (r *rig) flying(url string) []*fill {
	request := r.request("GET", url, nil)
	key := KeyOf(request.Epoch, &request.Target)
	s := r.cache.running.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.byKey[key])
}

var bg = context.Background()
