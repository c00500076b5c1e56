package edgehttp

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A client that asks and then takes nothing holds a request only for so long, over HTTP/1.1 and
// over HTTP/2, where its connection goes on and is kept busy.
func TestClientThatTakesNothing(t *testing.T) {
	t.Parallel()
	big := make([]byte, 16<<20) // more than sockets buffer
	e := newEdge(t, func(c *Config) { c.WriteStall = 200 * time.Millisecond })
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) { w.Write(big) })))

	t.Run("HTTP/1.1", func(t *testing.T) {
		conn, err := net.Dial("tcp", e.http)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /acme/big HTTP/1.1\r\nHost: shared.test\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		e.awaitAborted(1)
	})
	t.Run("HTTP/2", func(t *testing.T) {
		framer := e.windowless("img.acme.test", "/none")
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatalf("the stream was not reset: %v", err)
			}
			switch frame.(type) {
			case *http2.RSTStreamFrame:
				return
			case *http2.DataFrame:
				t.Fatal("data without a window")
			}
		}
	})
}

// A client that does not want as many files any more as it may ask for at once gets others at once
// on the same connection, also while origins are still asked for those.
func TestClientThatChangesItsMind(t *testing.T) {
	t.Parallel()
	const most = 128 // SETTINGS_MAX_CONCURRENT_STREAMS
	var asked atomic.Int64
	release := make(chan struct{})
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/a.txt" {
			asked.Add(1)
			<-release
		}
		oneFile(w, r)
	})))
	defer close(release)
	e.get("shared.test", "/acme/a.txt")
	var paths []string
	for i := range most {
		paths = append(paths, fmt.Sprintf("/acme/slow%d", i))
	}
	unwanted := e.windowless("shared.test", paths...)
	e.await("origins are asked for all", func() bool { return asked.Load() == most })
	others := e.crowd() // Because others wait too, the walks last.
	defer others.leave()
	for i, path := range paths {
		others.ask(path, fmt.Sprintf("192.0.2.%d", i+1))
	}
	e.await("others wait too", func() bool { return e.metric("edgewalk_edge_requests_in_flight") == 2*most })
	var err error
	for i := range most {
		err = errors.Join(err, unwanted.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel))
	}
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	for _, f := range [][2]string{
		{":method", "HEAD"}, {":scheme", "https"}, {":authority", "shared.test"}, {":path", "/acme/a.txt"},
	} {
		encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	// A stream is refused as long as those that were reset are still under way.
	for wanted := uint32(2*most + 1); ; wanted += 2 {
		err = errors.Join(err, unwanted.WriteHeaders(http2.HeadersFrameParam{
			StreamID: wanted, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true,
		}))
		if err != nil {
			t.Fatal(err)
		}
		frame, err := unwanted.ReadFrame()
		for err == nil && frame.Header().StreamID != wanted {
			frame, err = unwanted.ReadFrame()
		}
		if err != nil {
			t.Fatal(err)
		}
		if frame.Header().Type == http2.FrameHeaders {
			return
		}
	}
}

// windowless asks for paths of a host on streams of one HTTP/2 connection, which give the edge no
// window to answer in.
func (e *edge) windowless(host string, paths ...string) *http2.Framer {
	e.t.Helper()
	conn, err := tls.Dial("tcp", e.https,
		&tls.Config{InsecureSkipVerify: true, ServerName: host, NextProtos: []string{"h2"}})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	framer := http2.NewFramer(conn, conn)
	_, err = io.WriteString(conn, http2.ClientPreface)
	err = errors.Join(err, framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	for i, path := range paths {
		head.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", host}, {":path", path}} {
			encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		err = errors.Join(err, framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: uint32(2*i + 1), BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true,
		}))
	}
	if err != nil {
		e.t.Fatal(err)
	}
	return framer
}

// awaitAborted waits until n replies were cut off.
func (e *edge) awaitAborted(n float64) {
	e.t.Helper()
	e.await(fmt.Sprintf("%v replies are cut off", n),
		func() bool { return e.metric("edgewalk_edge_aborted_replies_total") >= n })
}

// await waits until something holds.
func (e *edge) await(what string, holds func() bool) {
	e.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			e.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// metric reads a counter or gauge; one with a label is named by both.
func (e *edge) metric(name string) (value float64) {
	e.t.Helper()
	families, err := e.registry.Gather()
	if err != nil {
		e.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			full := f.GetName()
			for _, l := range m.GetLabel() {
				full += " " + l.GetValue()
			}
			if full == name {
				value += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return value
}
