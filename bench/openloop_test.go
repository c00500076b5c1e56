package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A generator makes as many requests as it should, and knows of each how long it took; it says so
// when a reply is not the file.
func TestGenerator(t *testing.T) {
	var served atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != benchHost || r.URL.Path != "/1024/hit" {
			http.NotFound(w, r)
			return
		}
		served.Add(1)
		w.Write(make([]byte, 1024))
	}))
	defer server.Close()
	address := server.Listener.Addr().String()
	const requests = 5*connections + 3
	g, err := newGenerator(address, "/1024/hit", requests)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if err := g.run(t.Context(), 10_000, time.Now()); err != nil {
		t.Fatal(err)
	}
	if served.Load() != requests {
		t.Errorf("%d requests were served, want %d", served.Load(), requests)
	}
	for n, one := range g.asked {
		if one.Took <= 0 || one.Late < 0 || one.Late > one.Took {
			t.Errorf("request %d took %s, and was late by %s", n, one.Took, one.Late)
		}
	}
	missing, err := newGenerator(address, "/other", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer missing.close()
	if err := missing.run(t.Context(), 10_000, time.Now()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a reply without the file: %v", err)
	}
}
