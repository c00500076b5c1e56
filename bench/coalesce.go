package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// coalesce measures many clients that want one file which nobody has cached.
func coalesce(ctx context.Context, b *bench) error {
	if b.count == 0 {
		b.count = 1000
	}
	if b.rounds == 0 {
		b.rounds = 1
	}
	o, err := b.newOrigin(false)
	if err != nil {
		return err
	}
	_, e, err := b.singleEdge(ctx, noCore, o)
	if err != nil {
		return err
	}
	peers, err := b.startPeers(ctx, o)
	if err != nil {
		return err
	}
	t := newTable("coalesce", "round", "clients", "requests to the origin", "whole bodies", "first byte p50",
		"first byte p99", "last client done", "memory grew by")
	for round := range b.rounds {
		for _, p := range append([]*peer{{process: e.process, http: e.http}}, peers...) {
			c, err := b.crowd(ctx, p, o, fmt.Sprintf("/slow/%d/%d/%d", crowdSize, crowdRate, round))
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			t.add(p.name, strconv.Itoa(round+1), strconv.Itoa(b.count), strconv.FormatInt(c.asked, 10),
				strconv.Itoa(len(c.firstByte)),
				ms(median(c.firstByte)), ms(quantile(c.firstByte, 0.99)), c.took.Round(time.Millisecond).String(),
				mib(c.grew))
		}
	}
	t.print(b.out)
	fmt.Printf("The file has %d MiB and comes from the origin at %d MiB/s, so in %s.\n", crowdSize>>20, crowdRate>>20, time.Duration(crowdSize/crowdRate)*time.Second)
	return nil
}

// The file that the crowd wants, and how fast it comes, in bytes and bytes a second.
const (
	crowdSize = 10 << 20
	crowdRate = 5 << 20
)

// crowded is what became of a crowd. firstByte has a value for each client that got the whole file.
type crowded struct {
	firstByte []time.Duration
	asked     int64 // requests that the origin got
	took      time.Duration
	grew      int64
}

// crowd has many clients, which are connected already, ask for one path at the same time.
func (b *bench) crowd(ctx context.Context, p *peer, o *origin, path string) (*crowded, error) {
	clients := make([]*client, 0, b.count)
	defer func() {
		for _, c := range clients {
			c.close()
		}
	}()
	for range b.count {
		c, err := dial(p.http)
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
		if _, err := c.get("/1/connected"); err != nil {
			return nil, err
		}
	}
	result, before, asked := &crowded{}, p.memory().total, o.requests.Load()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var watcher sync.WaitGroup
	watcher.Go(func() {
		poll(watching, 100*time.Millisecond, func() bool { // Ends with stop.
			result.grew = max(result.grew, p.memory().total-before)
			return false
		})
	})
	var mu sync.Mutex
	var wg sync.WaitGroup
	start := time.Now()
	for _, c := range clients {
		wg.Go(func() {
			if took, whole := c.download(path); whole {
				mu.Lock()
				defer mu.Unlock()
				result.firstByte = append(result.firstByte, took)
			}
		})
	}
	wg.Wait()
	result.took, result.asked = time.Since(start), o.requests.Load()-asked
	stop()
	watcher.Wait()
	return result, nil
}

// download reads a file, and reports whether all of it came.
func (c *client) download(path string) (firstByte time.Duration, whole bool) {
	r, err := c.begin(path)
	if err != nil || r.status != 200 {
		return 0, false
	}
	return r.firstByte, r.length == crowdSize && c.skip(r.length) == nil
}
