package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
)

// bareCommand is the first argument of the process of a bare loop.
const bareCommand = "bare"

// startBare starts the fastest server that a Go program with a goroutine for each connection can
// be: it answers anything with a file of the size at the start of the path, or with 304 where there
// is a condition, and looks at nothing else.
func (b *bench) startBare(ctx context.Context, core int) (*peer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &peer{core: core}
	if p.http, err = b.freeAddress(); err != nil {
		return nil, err
	}
	p.args = []string{self, bareCommand, p.http}
	return p, b.runPeer(ctx, "bare loop", p)
}

// serveBare is the main function of that process.
func serveBare(ctx context.Context, address string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		conn, err := l.Accept()
		if err != nil {
			return ctx.Err()
		}
		go answerBare(conn)
	}
}

// bareReply is as long as an edge's.
func bareReply(length int, notModified bool) []byte {
	padding := bytes.Repeat([]byte("x"), 300)
	if notModified {
		return fmt.Appendf(nil, "HTTP/1.1 304 Not Modified\r\nCache-Status: bare; hit\r\nX-Padding: %s\r\n\r\n", padding[:225])
	}
	reply := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nCache-Status: bare; hit\r\nX-Padding: %s\r\nContent-Length: %d\r\n\r\n",
		padding, length)
	return append(reply, bytes.Repeat([]byte("x"), length)...)
}

func answerBare(conn net.Conn) {
	defer conn.Close()
	in := make([]byte, 4<<10)
	var reply []byte
	for {
		n, err := conn.Read(in)
		if err != nil {
			return
		}
		if reply == nil { // A connection asks for one path.
			path := bytes.TrimPrefix(in[:n], []byte("GET /"))
			size, _, _ := bytes.Cut(path, []byte("/"))
			length, err := strconv.Atoi(string(size))
			if err != nil {
				return
			}
			reply = bareReply(length, bytes.Contains(in[:n], []byte("\r\nIf-None-Match:")))
		}
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}
