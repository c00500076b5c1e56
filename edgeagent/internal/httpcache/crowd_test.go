package httpcache

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
)

// Whatever others ask for, and wherever they leave: a reply is what was asked for, whole. The
// replies are stored, do not fit into the store, or may not be stored.
func TestCrowdGetsRightBytes(t *testing.T) {
	t.Parallel()
	const size, clients, each = 3 << 19, 6, 12
	body := string(pattern(size))
	for name, limit := range map[string]int64{
		"stored": 1 << 30, "too large for the store": 1 << 20, "evicting": 13 << 20,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(o *objects.Config, _ *Config) { o.MaxBytes = limit })
			a := r.addOrigin("a")
			controls := []string{"max-age=60", "max-age=0", "no-cache", "private", "max-age=60, must-revalidate"}
			for i, control := range controls {
				h := http.Header{"Cache-Control": {control}, "Vary": {"Accept"}}
				if i%2 == 0 {
					h.Set("Etag", fmt.Sprintf(`"%d"`, i))
				}
				a.reply("/"+itoa(i), &originReply{status: 200, body: []byte(body), header: h})
			}
			var wg sync.WaitGroup
			for c := range clients {
				wg.Go(func() {
					random := rand.New(rand.NewPCG(uint64(c), uint64(limit)))
					for range each {
						askAtRandom(t, r, random, "/"+itoa(random.IntN(len(controls))), body)
					}
				})
			}
			wg.Wait()
			r.idle()
			if s := r.store.Stats(); s.Bytes > s.Limit {
				t.Errorf("%d bytes of %d", s.Bytes, s.Limit)
			}
		})
	}
}

// askAtRandom makes one request, for the whole file or some part of it, and may leave before its
// end.
func askAtRandom(t *testing.T, r *rig, random *rand.Rand, url, body string) {
	h := http.Header{"Accept": {[]string{"image/png", "image/webp"}[random.IntN(2)]}}
	want := body
	switch at := random.IntN(len(body)); random.IntN(5) {
	case 0:
		want = body[at:min(at+100_000, len(body))]
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", at, at+len(want)-1))
	case 1:
		want = body[at:]
		h.Set("Range", fmt.Sprintf("bytes=-%d", len(want)))
	case 2:
		h.Set("Range", fmt.Sprintf("bytes=0-9,%d-", len(body)-10))
		want = ""
	}
	reply := r.get(url, h)
	if !hasBody(reply) {
		t.Errorf("%s %v: %d without a body", url, h, reply.Status)
		return
	}
	defer reply.Close()
	content := bodyOf(reply)
	if random.IntN(4) == 0 {
		want = want[:random.IntN(len(want)+1)]
		got := make([]byte, len(want))
		if n, err := io.ReadFull(content, got); reply.Status/100 == 2 && want != "" &&
			(err != nil || string(got) != want) {
			t.Errorf("%s %v: %d, %d bytes, then %v", url, h, reply.Status, n, err)
		}
		return
	}
	got, err := io.ReadAll(content)
	right := string(got) == want && len(got) == int(reply.Length)
	if want == "" { // of several ranges, or the whole file where they are not answered
		right = string(got) == body ||
			strings.Contains(string(got), body[:10]) && strings.Contains(string(got), body[len(body)-10:])
	}
	if err != nil || !right {
		t.Errorf("%s %v: %d, %d bytes, %v", url, h, reply.Status, len(got), err)
	}
}
