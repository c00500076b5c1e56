package edgehttp

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// Who asks for nothing but the last byte of a file that has come with its head does not wait for
// what is put off for others: a file of one byte, and the last byte of a longer one.
func TestLastByteDoesNotWait(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		body := "file"
		if r.URL.Path[1] == '1' {
			body = "e"
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		io.WriteString(w, body)
	})))
	for i, test := range []struct{ file, fields string }{
		{"1", ""}, {"4", "Range: bytes=-1"}, {"4", "Range: bytes=3-3"},
	} {
		least := time.Hour // of several, because the machine may be busy
		for j := range 5 {
			began := time.Now()
			var fields []string
			if test.fields != "" {
				fields = append(fields, test.fields)
			}
			path := fmt.Sprintf("/acme/%s?%d.%d", test.file, i, j)
			if reply, body := e.get("shared.test", path, fields...); reply == nil || body != "e" {
				t.Fatalf("%q, %v", body, reply)
			}
			least = min(least, time.Since(began))
		}
		if least >= 90*time.Millisecond { // httpcache.putOffTime is 100 ms
			t.Errorf("%s %s: no miss took less than %v", test.file, test.fields, least)
		}
	}
}
