package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"golang.org/x/net/http2"
)

const (
	// idleConnections of each kind are opened, or as many as the edge takes.
	idleConnections = 20_000
	// idleSources are the addresses of loopback that they come from, because an edge takes a part
	// of its connections from one client.
	idleSources = 16
	// idleDialers connect at once.
	idleDialers = 16
)

// errFull is that the edge takes no more connections: fewer files may be open here than it would
// like.
var errFull = errors.New("the edge takes no more connections")

// idle measures what connections take that have asked once and stay. Each kind has an edge of its
// own, because a process keeps memory for what comes next.
func idle(ctx context.Context, b *bench) error {
	raiseOpenFiles()
	o, err := b.newOrigin(false)
	if err != nil {
		return err
	}
	f, _, err := b.singleEdge(ctx, noCore, o)
	if err != nil {
		return err
	}
	most, note := idleConnections, ""
	t := newTable("idle connections", "number", "resident each", "of it anonymous")
	for i, kind := range []struct{ name, protocol string }{
		{"HTTP/1.1", ""}, {"HTTP/1.1 over TLS", "http/1.1"}, {"HTTP/2", "h2"},
	} {
		e, err := f.secureEdge(b.binary, fmt.Sprintf("idle-%d", i), noCore)
		if err != nil {
			return err
		}
		if err := f.applyAndWait(ctx, numbered(webManifest(o), i+1)); err != nil {
			return err
		}
		address := e.https
		if kind.protocol == "" {
			address = e.http
		}
		if err := warm(e.http, "/1024/hit"); err != nil {
			return err
		}
		pause(ctx, idleTime)
		before := e.process.memory()
		open, err := openIdle(ctx, address, kind.protocol, most)
		if errors.Is(err, errFull) {
			most, err = len(open), nil
			note = fmt.Sprintf("The edge takes %d connections where %d files may be open, because requests and fills need "+
				"files too (docs/limits.md).\n", most, openFiles())
		}
		if err == nil {
			pause(ctx, idleTime)
			after, n := e.process.memory(), int64(len(open))
			t.add(kind.name, fmt.Sprint(n), fmt.Sprintf("%.1f KiB", float64(after.total-before.total)/float64(n)/1024),
				fmt.Sprintf("%.1f KiB", float64(after.anonymous-before.anonymous)/float64(n)/1024))
		}
		for _, conn := range open {
			conn.Close()
		}
		if err != nil {
			return fmt.Errorf("%s, after %d connections: %w", kind.name, len(open), err)
		}
	}
	t.print(b.out)
	fmt.Fprintf(b.out, "Of one process, %s after each connection had one reply. %s", idleTime, note)
	return nil
}

// openIdle opens connections and asks for a file on each. protocol is that of ALPN, none without
// TLS. The sockets are all that is kept of them.
func openIdle(ctx context.Context, address, protocol string, most int) (open []net.Conn, err error) {
	var mu sync.Mutex
	var dialers sync.WaitGroup
	for i := range idleDialers {
		dialers.Go(func() {
			for n := i; n < most && ctx.Err() == nil; n += idleDialers {
				source := net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+n%idleSources))}
				socket, failed := (&net.Dialer{LocalAddr: &source}).DialContext(ctx, "tcp", address)
				if failed == nil {
					failed = askOnce(socket, protocol)
				}
				mu.Lock()
				switch {
				case failed == nil:
					open = append(open, socket)
				case socket != nil:
					socket.Close()
				}
				if err == nil {
					err = failed
				}
				broken := err != nil
				mu.Unlock()
				if broken {
					return
				}
			}
		})
	}
	dialers.Wait()
	return open, err
}

// askOnce asks for a file.
func askOnce(socket net.Conn, protocol string) error {
	conn := socket
	request, err := http.NewRequest(http.MethodGet, "https://"+benchHost+"/1024/hit", nil)
	if err != nil {
		return err
	}
	if protocol != "" {
		conn = tls.Client(socket, &tls.Config{
			InsecureSkipVerify: true, ServerName: benchHost, NextProtos: []string{protocol},
		})
	}
	var reply *http.Response
	if protocol == "h2" {
		//lint:ignore SA1019 http.Transport makes its connections by itself; this one is made.
		client, err := new(http2.Transport).NewClientConn(conn)
		if err != nil {
			return err
		}
		if reply, err = client.RoundTrip(request); err != nil {
			return err
		}
	} else {
		if err := request.Write(conn); err != nil {
			return err
		}
		if reply, err = http.ReadResponse(bufio.NewReader(conn), request); err != nil {
			return err
		}
	}
	defer reply.Body.Close()
	switch reply.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusServiceUnavailable:
		return errFull
	}
	return fmt.Errorf("status %s", reply.Status)
}
