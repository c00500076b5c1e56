package httpcache

import (
	"net/http"
	"runtime"
	"testing"
)

// What is decoded of a head is counted in the memory of the store at about what it takes.
func TestDecodedHeadsAreWeighed(t *testing.T) {
	r := newRig(t)
	r.addOrigin("a").reply("/x", &originReply{status: 200, body: []byte("x"), header: http.Header{
		"Cache-Control": {"max-age=60"}, "Etag": {`"0123456789abcdef"`}, "Vary": {"Accept, Accept-Encoding"},
		"Content-Type": {"text/css"},
	}})
	r.fetch("/x", nil)
	r.idle()
	q := r.cache.newQuery(r.request("GET", "/x", nil))
	h := r.store.Lookup(q.key)[0].Head()
	const n = 10_000
	kept := make([]any, n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC() // What pools hold is freed by the second one.
	runtime.ReadMemStats(&before)
	for i := range kept {
		kept[i] = Decode(h)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int64(after.HeapAlloc-before.HeapAlloc) / n
	runtime.KeepAlive(kept)
	t.Logf("%d bytes each", each)
	if each < 250 || each > 750 {
		t.Errorf("a decoded head takes %d bytes, which objects counts as 500", each)
	}
}
