package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// stateFigures are those of a topology of very many domains.
func stateFigures(ctx context.Context, t *fleetTable) error {
	f, err := t.startControlPlane(ctx, "state", false)
	if err != nil {
		return err
	}
	defer f.stop()
	domains := t.size(1_000_000, 20)
	began := time.Now()
	if _, _, err := f.makeAccounts(ctx, domains); err != nil {
		return err
	}
	of := fmt.Sprintf(" of %d domains", domains)
	t.figure("import"+of, "s", "300", seconds(time.Since(began)),
		fmt.Sprintf("applies of %d one after another", perManifest))

	f.controlplane.stop()
	if err := f.runControlPlane(ctx, "state"); err != nil {
		return err
	}
	t.figure("control plane boot"+of, "s", "10", seconds(time.Since(f.controlplane.started)),
		"from exec until it is ready; with its etcd")

	line, err := f.b.newRelay(f.edgeAddr)
	if err != nil {
		return err
	}
	f.edgeAddr = line.address()
	e, err := f.startEdge("cold")
	if err != nil {
		return err
	}
	if err := e.await(ctx, func() bool { return ready(e.metrics) }); err != nil {
		return err
	}
	cold := time.Since(e.started)
	t.figure("full state"+of+", bytes on the wire", "MB", "35", fmt.Sprintf("%.1f", float64(line.received.Load())/1e6),
		"to one edge, with all that HTTP/2 adds")
	t.figure("cold sync"+of, "s", "8", seconds(cold), "from exec of the edge until it is ready")
	pause(ctx, t.lasting(30*time.Second))
	t.figure("edge memory"+of, "MB", "400", fmt.Sprintf("%.0f", float64(e.memory().total)/1e6),
		"resident, after a cold sync")
	e.stop()
	if err := f.run("cold", e); err != nil {
		return err
	}
	if err := e.await(ctx, func() bool { return ready(e.metrics) }); err != nil {
		return err
	}
	t.figure("edge boot from disk"+of, "s", "3", seconds(time.Since(e.started)), "from exec until it is ready")
	pause(ctx, t.lasting(30*time.Second))
	t.figure("edge memory"+of+", after that", "MB", "400", fmt.Sprintf("%.0f", float64(e.memory().total)/1e6),
		"resident")
	m := f.idleMemory(ctx, t.lasting(150*time.Second))
	t.figure(
		"control plane memory"+of, "MB", "800", fmt.Sprintf("%.0f", float64(m.total)/1e6),
		fmt.Sprintf("resident, with its etcd; anonymous %.0f, the rest is mapped from files; at most %.0f", float64(m.anonymous)/1e6, float64(m.peak)/1e6),
	)
	return ctx.Err()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }

// relay passes connections on and counts what comes back.
type relay struct {
	listener net.Listener
	received atomic.Int64
}

func (b *bench) newRelay(to string) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.closers = append(b.closers, func() { l.Close() })
	r := &relay{listener: l}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go r.pass(from, to)
		}
	}()
	return r, nil
}

func (r *relay) address() string { return r.listener.Addr().String() }

// pass passes one connection on until either end closes it.
func (r *relay) pass(from net.Conn, to string) {
	defer from.Close()
	target, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer target.Close()
	go func() {
		io.Copy(target, from) // The other direction ends with it.
		target.Close()
	}()
	io.Copy(countingWriter{from, &r.received}, target)
}

type countingWriter struct {
	io.Writer
	n *atomic.Int64
}

func (w countingWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.n.Add(int64(n))
	return n, err
}
