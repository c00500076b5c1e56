package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/color"
	"net"
	"net/http"
	"time"
)

// sampleOrigin is a web server with a few generated pictures: what a company has lying about.
type sampleOrigin struct {
	id, address string
	back, front color.RGBA
	files       map[string]pattern
}

// The two differ in colour, and each has files that the other lacks.
var sampleOrigins = []sampleOrigin{
	{id: "studio", address: "127.0.0.1:8091", back: white, front: blue,
		files: map[string]pattern{"/shoes.png": disc, "/hat.png": stripes}},
	{id: "legacy", address: "127.0.0.1:8092", back: white, front: orange,
		files: map[string]pattern{"/shoes.png": squares, "/bag.png": squares, "/2019/boots.png": disc}},
}

// started is when the pictures were made, as far as their Last-Modified says: one date, so that a
// restart changes nothing.
var started = time.Date(2024, time.May, 1, 12, 0, 0, 0, time.UTC)

// runningOrigin is a sample origin with its socket.
type runningOrigin struct {
	id     string
	url    string
	server *http.Server
	listen net.Listener
}

// start listens at the sample's own address, so that it stays the same over restarts, or at any
// when that is taken.
func (s sampleOrigin) start() (*runningOrigin, error) {
	pictures := map[string][]byte{}
	for path, p := range s.files {
		data, err := picture(s.back, s.front, p)
		if err != nil {
			return nil, fmt.Errorf("draw %s: %w", path, err)
		}
		pictures[path] = data
	}
	listen, err := net.Listen("tcp", s.address)
	if err != nil {
		if listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("start sample origin %s: %w", s.id, err)
		}
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := pictures[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Cache-Control", "public, max-age=600")
		w.Header().Set("ETag", fmt.Sprintf(`"%s-%d"`, s.id, len(data)))
		http.ServeContent(w, r, "", started, bytes.NewReader(data))
	})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	return &runningOrigin{id: s.id, url: "http://" + listen.Addr().String(), server: server, listen: listen}, nil
}

// run serves until ctx ends.
func (o *runningOrigin) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { o.server.Close() })
	defer stop()
	if err := o.server.Serve(o.listen); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve sample origin %s: %w", o.id, err)
	}
	return nil
}
