package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

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
	all := make([][]time.Duration, len(l.contenders))
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
			all[at] = append(all[at], took...)
		}
	}
	t := newTable("latency: "+l.name+", open loop", "requests", "p50", "p99", "p99.9")
	for i, c := range l.contenders {
		t.add(c.name, fmt.Sprint(len(all[i])), ms(median(all[i])), ms(quantile(all[i], 0.99)),
			ms(quantile(all[i], 0.999)))
	}
	t.print()
	fmt.Printf("%d rounds of %s, taken in turn, at about %.0f requests/s: half of what edgewalk or nginx "+
		"can do at most, whichever is less; %d connections. A request counts from when it was due.\n", b.rounds, b.duration, median(rates), connections)
	return nil
}

// openLoop asks for a path at a rate, and returns how long each request took from when it was due.
func openLoop(
	ctx context.Context, address, path string, rate float64, d time.Duration,
) (all []time.Duration, err error) {
	interval := time.Duration(float64(connections) / rate * float64(time.Second))
	took := make([][]time.Duration, connections)
	clients, ctx := errgroup.WithContext(ctx)
	start := time.Now().Add(100 * time.Millisecond) // when all are connected
	for i := range connections {
		clients.Go(func() error {
			c, err := dial(address, benchHost)
			if err != nil {
				return err
			}
			defer c.close()
			due := start.Add(interval * time.Duration(i) / connections)
			for end := start.Add(d); due.Before(end) && ctx.Err() == nil; due = due.Add(interval) {
				if wait := time.Until(due); wait > 0 {
					time.Sleep(wait)
				}
				r, err := c.get(path)
				if err != nil {
					return err
				}
				if r.status != 200 {
					return fmt.Errorf("GET %s: status %d", path, r.status)
				}
				took[i] = append(took[i], time.Since(due))
			}
			return nil
		})
	}
	err = clients.Wait()
	for _, some := range took {
		all = append(all, some...)
	}
	return all, err
}
