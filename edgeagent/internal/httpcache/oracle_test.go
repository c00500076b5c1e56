package httpcache

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
)

// TestPurgeOracle has clients read a file that changes under them, whole and in part, while it is
// purged in every way. Each byte of a version is its number, so mixed bytes show, and so do bytes
// from before a purge in a reply that was asked for after it.
func TestPurgeOracle(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	const size = 300_000
	var version, floor atomic.Int64
	version.Store(1)
	floor.Store(1)
	a.reply("/x", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
		v := version.Load()
		h := w.Header()
		h.Set("Cache-Control", "max-age=60")
		h.Set("Cache-Tag", "t")
		h.Set("Etag", `"`+strconv.FormatInt(v, 10)+`"`)
		if req.Header.Get("If-None-Match") == h.Get("Etag") {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		piece := make([]byte, size/10)
		for i := range piece {
			piece[i] = byte(v)
		}
		h.Set("Content-Length", strconv.Itoa(size))
		for range 10 {
			if _, err := w.Write(piece); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	}})
	done := make(chan struct{})
	var wg sync.WaitGroup
	var replies atomic.Int64
	for client := range 8 {
		rng := rand.New(rand.NewPCG(uint64(client), 1))
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				h := http.Header{}
				if rng.IntN(3) == 0 {
					h.Set("Range", fmt.Sprintf("bytes=%d-", rng.IntN(size)))
				}
				least := floor.Load()
				reply := r.get("/x", h)
				body, err := io.ReadAll(bodyOf(reply))
				reply.Close()
				replies.Add(1)
				if err != nil || int64(len(body)) != reply.Length {
					t.Errorf("%d of %d bytes, %v", len(body), reply.Length, err)
					return
				}
				for _, c := range body {
					if c != body[0] || int64(c) < least {
						t.Errorf("version %d begins with %d, purged below %d", c, body[0], least)
						return
					}
				}
			}
		})
	}
	rounds := 60
	if testing.Short() {
		rounds = 20
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range rounds {
		seen := replies.Load()
		v := version.Add(1)
		hard := rng.IntN(2) == 0
		switch rng.IntN(3) {
		case 0:
			r.purge(purges.Purge{Hard: hard, Everything: true})
		case 1:
			r.purge(purges.Purge{Hard: hard, Tag: "t"})
		case 2:
			r.purge(purges.Purge{
				Hard: hard, URLs: []purges.URLScope{{Endpoint: r.account.Default().UID, Path: "/x", AnyQuery: true}},
			})
		}
		floor.Store(v)
		eventually(t, "clients have read on", func() bool { return replies.Load() >= seen+10 || t.Failed() })
	}
	close(done)
	wg.Wait()
	t.Logf("%d replies, %d requests to the origin", replies.Load(), a.requests())
}
