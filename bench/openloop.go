package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// openLoopCommand is the first argument of the process that asks at a rate. It is one of its own,
// so that it takes nothing from the core of the server.
const openLoopCommand = "open-loop"

// asked is how long one request took from when it was due, and how much of that had passed before
// the generator looked at the clock: the generator's own part of it, or the machine's.
type asked struct{ Took, Late time.Duration }

// loopReport is what a generator has found out.
type loopReport struct {
	asked []asked
	// Of the cores of the server and of the generator. Those of the server's are not known if
	// witnessed is false.
	pauses    []gap
	witnessed bool
}

// openLoop asks for a path at a rate.
func openLoop(ctx context.Context, address, path string, rate float64, d time.Duration) (*loopReport, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	name, args := pinned(generatorCore, self, openLoopCommand, address, path, fmt.Sprint(rate), d.String())
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	return readReport(bytes.NewReader(out))
}

// write writes a report for another process of this program.
func (r *loopReport) write(to io.Writer) error {
	counts := [3]int64{int64(len(r.asked)), int64(len(r.pauses))}
	if r.witnessed {
		counts[2] = 1
	}
	buffered := bufio.NewWriter(to)
	for _, part := range []any{counts, r.asked, r.pauses} {
		if err := binary.Write(buffered, binary.NativeEndian, part); err != nil {
			return err
		}
	}
	return buffered.Flush()
}

func readReport(from io.Reader) (*loopReport, error) {
	var counts [3]int64
	if err := binary.Read(from, binary.NativeEndian, &counts); err != nil {
		return nil, err
	}
	r := &loopReport{make([]asked, counts[0]), make([]gap, counts[1]), counts[2] == 1}
	return r, errors.Join(binary.Read(from, binary.NativeEndian, r.asked),
		binary.Read(from, binary.NativeEndian, r.pauses))
}

// askOpenLoop is the process. It writes what it has measured to out.
func askOpenLoop(ctx context.Context, args []string, out io.Writer) error {
	rate, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(args[3])
	if err != nil {
		return err
	}
	// A collection here would be seen as one of the server.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	// The process may run on one core alone, for which Go would have the generator and the witness
	// take turns of 10 ms.
	runtime.GOMAXPROCS(3)
	g, err := newGenerator(args[0], args[1], int(rate*d.Seconds()))
	if err != nil {
		return err
	}
	defer g.close()
	start := time.Now()
	w := watchCore(serverCore, start)
	err = g.run(ctx, rate, start)
	report := &loopReport{g.asked, g.pauses, w != nil}
	if w != nil {
		report.pauses = append(report.pauses, w.end()...)
	}
	if err != nil {
		return err
	}
	return report.write(out)
}

// generator asks over connections in turn. It never sleeps, because being woken may take
// milliseconds that would be seen as the server's: it looks at its clock and its connections over
// and over.
type generator struct {
	request []byte
	epoll   int
	clients []openClient
	asked   []asked
	pauses  []gap // in which it did not look at its clock
}

// openClient is a connection of a generator. It asks again when it has a reply, as soon as that is
// due.
type openClient struct {
	conn *net.TCPConn
	file *os.File // of the socket
	next int      // the number of the request that it asks, or will
	due  int      // those up to this one are due
	in   []byte
	n    int
	busy bool
}

// newGenerator connects. It makes at most so many requests.
func newGenerator(address, path string, requests int) (g *generator, err error) {
	g = &generator{
		request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, benchHost),
		asked:   make([]asked, requests), clients: make([]openClient, connections),
	}
	if g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	for i := range g.clients {
		if err := g.clients[i].connect(g.epoll, i, address); err != nil {
			g.close()
			return nil, err
		}
	}
	return g, nil
}

func (c *openClient) connect(epoll, i int, address string) error {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	c.conn = conn.(*net.TCPConn)
	if c.file, err = c.conn.File(); err != nil {
		return err
	}
	c.next, c.due, c.in = i, i-connections, make([]byte, 16<<10)
	fd := int(c.file.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)})
}

func (g *generator) close() {
	for i := range g.clients {
		if c := &g.clients[i]; c.conn != nil {
			c.conn.Close()
			c.file.Close()
		}
	}
	unix.Close(g.epoll)
}

// run makes all requests at a rate, from start on.
func (g *generator) run(ctx context.Context, rate float64, start time.Time) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	interval := float64(time.Second) / rate
	var events [connections]unix.EpollEvent
	// A server that answers too slowly still gets the time of one request after the last was due.
	limit := dueAt(len(g.asked), interval) + clientTimeout
	last := time.Since(start)
	for due, done := 0, 0; done < len(g.asked); {
		now := time.Since(start)
		if now-last > leastPause {
			g.pauses = append(g.pauses, gap{last, now})
		}
		last = now
		if now > limit || ctx.Err() != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("%d of %d requests were answered", done, len(g.asked)))
		}
		for ; due < len(g.asked) && dueAt(due, interval) <= now; due++ {
			c := &g.clients[due%connections]
			c.due = due
			g.asked[due].Late = now - dueAt(due, interval)
			if err := g.ask(c); err != nil {
				return err
			}
		}
		n, err := unix.EpollWait(g.epoll, events[:], 0)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, event := range events[:max(n, 0)] {
			c := &g.clients[event.Fd]
			whole, err := c.read()
			if err != nil {
				return err
			}
			if !whole {
				continue
			}
			g.asked[c.next].Took = time.Since(start) - dueAt(c.next, interval)
			done++
			c.next += connections
			c.busy = false
			if err := g.ask(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// ask sends the next request of a client, if it is due and the one before was answered.
func (g *generator) ask(c *openClient) error {
	if c.busy || c.next > c.due {
		return nil
	}
	c.busy = true
	n, err := unix.Write(int(c.file.Fd()), g.request)
	if err == nil && n < len(g.request) {
		err = io.ErrShortWrite
	}
	return err
}

// read takes what has come of a reply. It reports whether that is all.
func (c *openClient) read() (whole bool, err error) {
	n, err := unix.Read(int(c.file.Fd()), c.in[c.n:])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return false, nil
	case err != nil:
		return false, err
	case n == 0:
		return false, io.ErrUnexpectedEOF
	}
	c.n += n
	head, _, ok := bytes.Cut(c.in[:c.n], []byte("\r\n\r\n"))
	if !ok {
		return false, nil
	}
	length := number(field(head, "Content-Length"))
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) || length < 0 {
		return false, fmt.Errorf("reply begins with %q", head)
	}
	if c.n < len(head)+len("\r\n\r\n")+int(length) {
		return false, nil
	}
	c.n = 0
	return true, nil
}
