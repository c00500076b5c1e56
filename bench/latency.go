package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// timed is how long requests took in each round.
type timed struct {
	requests      int
	p50, p99, top []time.Duration // top is p99.9
}

// latency measures how long hits take when clients ask at a steady rate, whatever the server does:
// a request counts from when it was due (open loop), so that a pause is seen by all who it delays.
func latency(ctx context.Context, b *bench) error {
	loads, err := b.hitLoads(ctx)
	if err != nil {
		return err
	}
	if b.duration == 0 {
		b.duration = 10 * time.Second
	}
	if b.rounds == 0 {
		b.rounds = 5
	}
	l := loads[0]
	all := make([]timed, len(l.contenders))
	var rates []float64
	for round := range b.rounds {
		most := make([]float64, len(l.contenders))
		for i, c := range l.contenders {
			got, err := l.run(ctx, c.address, l.path, time.Second)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			most[i] = got.requests
		}
		for i := range l.contenders {
			at := (i + round) % len(l.contenders)
			c := l.contenders[at]
			rate := most[at] / 2
			for j, other := range l.contenders { // The same for both, so that they can be compared.
				if other.name == "edgewalk" || other.name == "nginx" {
					rate = min(rate, most[j]/2)
				}
			}
			rates = append(rates, rate)
			took, err := openLoop(ctx, c.address, l.path, rate, b.duration)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			m := &all[at]
			m.requests += len(took)
			m.p50 = append(m.p50, median(took))
			m.p99 = append(m.p99, quantile(took, 0.99))
			m.top = append(m.top, quantile(took, 0.999))
			b.note("%-9s %s at %.0f requests/s: p99.9 %s", c.name, b.duration, rate, ms(quantile(took, 0.999)))
		}
	}
	t := newTable("latency: "+l.name+", open loop", "requests", "p50", "p99", "p99.9", "p99.9, least and most")
	part := fmt.Sprintf("hits of 1 KB, HTTP/1.1, %.0f a second, half of the maximum, open loop", median(rates))
	for _, name := range []string{"p50", "p99", "p99.9"} {
		b.figures = append(b.figures, figure{part, name, map[string]string{}})
	}
	for i, c := range l.contenders {
		m, own := &all[i], &all[0]
		t.add(c.name, fmt.Sprint(m.requests), ms(median(m.p50)), ms(median(m.p99)), ms(median(m.top)),
			ms(quantile(m.top, 0))+", "+ms(quantile(m.top, 1)))
		for at, took := range [][2][]time.Duration{{m.p50, own.p50}, {m.p99, own.p99}, {m.top, own.top}} {
			values := b.figures[at].values
			if values[c.name] = ms(median(took[0])); c.name == "nginx" {
				values[ratioOf] = ratio(median(took[1]).Seconds(), median(took[0]).Seconds())
			}
		}
	}
	t.print(b.out)
	fmt.Fprintf(b.out, "Medians of the %d rounds' quantiles, each of %s, taken in turn, at about %.0f requests/s: half of "+
		"what edgewalk or nginx can do at most, whichever is less; %d connections. A request counts from when it was due.\n",
		b.rounds, b.duration, median(rates), connections)
	return nil
}

// openLoopCommand is the first argument of the process that asks at a rate. It is one of its own,
// so that it takes nothing from the core of the server.
const openLoopCommand = "open-loop"

// openLoop asks for a path at a rate, and returns how long each request took from when it was due.
func openLoop(ctx context.Context, address, path string, rate float64, d time.Duration) ([]time.Duration, error) {
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
	all := make([]time.Duration, len(out)/8)
	_, err = binary.Decode(out, binary.NativeEndian, all)
	return all, err
}

// askOpenLoop is the process. It writes the times to out, eight bytes each.
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
	interval := time.Duration(connections / rate * float64(time.Second))
	took := make([][]time.Duration, connections)
	clients, ctx := errgroup.WithContext(ctx)
	start := time.Now().Add(100 * time.Millisecond) // when all are connected
	for i := range connections {
		took[i] = make([]time.Duration, 0, int(d/interval)+1)
		clients.Go(func() error {
			c, err := dial(args[0], benchHost)
			if err != nil {
				return err
			}
			defer c.close()
			due := start.Add(interval * time.Duration(i) / connections)
			for end := start.Add(d); due.Before(end) && ctx.Err() == nil; due = due.Add(interval) {
				if wait := time.Until(due); wait > 0 {
					time.Sleep(wait)
				}
				r, err := c.get(args[1])
				if err != nil {
					return err
				}
				if r.status != 200 {
					return fmt.Errorf("GET %s: status %d", args[1], r.status)
				}
				took[i] = append(took[i], time.Since(due))
			}
			return nil
		})
	}
	if err := clients.Wait(); err != nil {
		return err
	}
	buffered := bufio.NewWriter(out)
	for _, some := range took {
		if err := binary.Write(buffered, binary.NativeEndian, some); err != nil {
			return err
		}
	}
	return buffered.Flush()
}
