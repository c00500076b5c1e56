package main

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// origin is a web server in the bench's own process that has a file at any path:
//
//	/SIZE/any/thing        SIZE bytes
//	/slow/SIZE/RATE/any    SIZE bytes at RATE bytes a second, in pieces of 10 ms
//
// An origin that is empty has none.
type origin struct {
	url      string
	requests atomic.Int64
	empty    bool
}

// filler is what files are made of.
var filler = strings.Repeat("0123456789abcde\n", 4096)

func (b *bench) newOrigin(empty bool) (*origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{url: "http://" + l.Addr().String(), empty: empty}
	server := &http.Server{Handler: o}
	go server.Serve(l) // Ends with Close.
	b.closers = append(b.closers, func() { server.Close() })
	return o, nil
}

// ServeHTTP implements [http.Handler].
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.requests.Add(1)
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	rate := 0
	if parts[0] == "slow" && len(parts) > 2 {
		rate, _ = strconv.Atoi(parts[2])
		parts = parts[1:]
	}
	size, err := strconv.Atoi(parts[0])
	if o.empty || err != nil {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "image/jpeg")
	h.Set("Content-Length", strconv.Itoa(size))
	h.Set("Cache-Control", "public, max-age=36000")
	h.Set("ETag", `"`+strconv.Itoa(size)+`"`)
	h.Set("Last-Modified", "Mon, 05 Jan 2026 10:00:00 GMT")
	if r.Method == http.MethodHead {
		return
	}
	sendFiller(r.Context(), w, size, rate)
}

// sendFiller writes size bytes, at most rate a second unless rate is 0. A client that goes ends it.
func sendFiller(ctx context.Context, w http.ResponseWriter, size, rate int) {
	const step = 10 * time.Millisecond
	piece := len(filler)
	if rate > 0 {
		piece = min(piece, max(1, rate/int(time.Second/step)))
	}
	for next := time.Now(); size > 0; {
		n, err := w.Write([]byte(filler[:min(size, piece)]))
		if err != nil {
			return
		}
		size -= n
		if rate > 0 {
			http.NewResponseController(w).Flush()
			next = next.Add(step * time.Duration(max(1, n*int(time.Second/step)/rate)))
			pause(ctx, time.Until(next))
		}
	}
}
