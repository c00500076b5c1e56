package httpcache

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// An origin changes its files, and by what it chooses them, and says so: by 200s, and by 304s to
// those whose file is the same as before. No client gets what was chosen for another one.
func TestOriginThatChangesWhatItChoosesBy(t *testing.T) {
	t.Parallel()
	rounds := 30
	if testing.Short() {
		rounds = 6
	}
	r := newRig(t)
	a := r.addOrigin("a")
	r.setOrigin("a", &topologyv1.WebOrigin{BaseUrl: a.url, ForwardRequestHeaders: []string{"x-device", "x-size"}})
	r.apply()
	for round := range rounds {
		rng := rand.New(rand.NewPCG(uint64(round), 7))
		version, vary := 0, map[string]bool{}
		file := func(h http.Header) string {
			name := fmt.Sprint("version ", version)
			if vary["Accept"] && !strings.Contains(h.Get("Accept"), "webp") {
				name += " as jpeg"
			}
			if device := h.Get("X-Device"); vary["X-Device"] && device != "phone" {
				name += " for " + device
			}
			return name
		}
		url := fmt.Sprint("/", round)
		a.reply(url, &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
			body, h := file(req.Header), w.Header()
			etag := `"` + body + `"`
			h.Set("Cache-Control", "max-age=1")
			h.Set("Etag", etag)
			h["Vary"] = append(slices.Collect(maps.Keys(vary)), "X-Size") // of what it is sent, it looks at no more
			if req.Header.Get("If-None-Match") == etag {
				w.WriteHeader(http.StatusNotModified)
			} else {
				fmt.Fprint(w, body)
			}
		}})
		for range 40 {
			name := []string{"Accept", "X-Device"}[rng.IntN(2)]
			switch {
			case rng.IntN(3) == 0:
				version++
			case vary[name]:
				delete(vary, name)
			default:
				vary[name] = true
			}
			var clients sync.WaitGroup
			for range 1 + rng.IntN(4) {
				rng := rand.New(rand.NewPCG(rng.Uint64(), 1))
				clients.Go(func() {
					for range 4 {
						h := http.Header{"X-Device": {[]string{"phone", "desk"}[rng.IntN(2)]}}
						if rng.IntN(2) == 0 {
							h.Set("Accept", "image/webp")
						}
						if got, want := r.fetch(url, h), file(h); got != want {
							t.Errorf("round %d: %v gets %q, want %q", round, h, got, want)
						}
					}
				})
			}
			clients.Wait()
			r.idle()
			if t.Failed() {
				return
			}
			if rng.IntN(3) == 0 {
				r.purge(purges.Purge{Everything: true, Hard: rng.IntN(4) == 0})
			} else {
				r.clock.add(2 * time.Second)
			}
		}
	}
}
