package main

import (
	"context"
	"encoding/base32"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"time"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// idleTime is what processes get to give memory back before it is measured.
const idleTime = 5 * time.Second

// memory measures resident memory.
func memory(ctx context.Context, b *bench) error {
	raiseOpenFiles()
	o, err := b.newOrigin(false)
	if err != nil {
		return err
	}
	f, e, err := b.singleEdge(ctx, noCore, o)
	if err != nil {
		return err
	}
	t := newTable("memory", "process", "resident", "of it anonymous", "peak")
	measure := func(state string, processes ...*process) {
		for _, p := range processes {
			m := p.memory()
			t.add(state, p.name, mib(m.total), mib(m.anonymous), mib(m.peak))
		}
	}
	pause(ctx, idleTime)
	measure("idle", f.controlplane, e.process)
	peers, err := b.startPeers(ctx, o)
	if err != nil {
		return err
	}
	for _, p := range peers {
		measure("idle", p.process)
	}
	with := fmt.Sprintf("%d objects of 1 KB", b.objects)
	contenders := append([]*peer{{process: e.process, http: e.http}}, peers...)
	for _, p := range contenders {
		took, err := fill(ctx, p.http, b.objects)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		pause(ctx, idleTime)
		measure(with, p.process)
		fmt.Printf("%s was filled with %s in %s\n", p.name, with, took.Round(100*time.Millisecond))
	}
	if b.domains > 0 {
		if err := b.loadDomains(ctx, f); err != nil {
			return err
		}
		pause(ctx, idleTime)
		measure(fmt.Sprintf("then %d domains", b.domains), f.controlplane, e.process)
	}
	fmt.Println()
	t.print(b.out)
	return nil
}

// startPeers starts the peers that are there.
func (b *bench) startPeers(ctx context.Context, o *origin) (all []*peer, err error) {
	for _, start := range []func(context.Context, int, *origin) (*peer, error){b.startNginx, b.startVarnish} {
		p, err := start(ctx, noCore, o)
		if err != nil {
			return nil, err
		}
		if p != nil {
			all = append(all, p)
		}
	}
	return all, nil
}

// objectPath is the path of one of many objects.
func objectPath(i int) string { return fmt.Sprintf("/1024/folder-%03d/picture-%06d.jpg", i%1000, i) }

// fill requests many objects over 16 connections, and returns how long it took.
func fill(ctx context.Context, address string, objects int) (time.Duration, error) {
	const workers = 16
	start := time.Now()
	failed := make(chan error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			if err := fillPart(ctx, address, w, workers, objects); err != nil {
				failed <- err
			}
		})
	}
	wg.Wait()
	close(failed)
	return time.Since(start), <-failed
}

func fillPart(ctx context.Context, address string, from, step, objects int) error {
	c, err := dial(address)
	if err != nil {
		return err
	}
	defer c.close()
	for i := from; i < objects && ctx.Err() == nil; i += step {
		r, err := c.get(objectPath(i))
		if err != nil {
			return err
		}
		if r.status != 200 {
			return fmt.Errorf("GET %s: status %d", objectPath(i), r.status)
		}
	}
	return ctx.Err()
}

// perManifest is how many domains one account gets: what one step is guaranteed to hold, less the
// account itself.
const perManifest = 1950

// loadDomains makes accounts with custom domains, waits for them and says how long that took.
func (b *bench) loadDomains(ctx context.Context, f *fleet) error {
	start := time.Now()
	times, last, err := f.makeAccounts(ctx, b.domains)
	if err != nil {
		return err
	}
	stored := time.Since(start)
	if err := f.wait(ctx, last); err != nil {
		return err
	}
	fmt.Printf("%d domains in %d applies: p50 %s, p99 %s an apply; all stored after %s, all at the edge after %s\n", b.domains, len(times),
		ms(median(times)), ms(quantile(times, 0.99)), stored.Round(time.Millisecond),
		time.Since(start).Round(time.Millisecond))
	return nil
}

// makeAccounts makes accounts with custom domains, until there are as many as asked for. It returns
// how long each apply took and the last revision.
func (f *fleet) makeAccounts(ctx context.Context, domains int) (times []time.Duration, last int64, err error) {
	for made := 0; made < domains; {
		m := accountManifest(fmt.Sprintf("shop-%04d", len(times)), made, min(perManifest, domains-made))
		made += len(m.CustomDomains)
		sent := time.Now()
		if last, err = f.apply(ctx, m); err != nil {
			return nil, 0, fmt.Errorf("after %d domains: %w", made, err)
		}
		times = append(times, time.Since(sent))
		if len(times)%20 == 0 || made == domains {
			f.b.note("%d domains, the last %d in %s", made, len(m.CustomDomains),
				times[len(times)-1].Round(time.Millisecond))
		}
	}
	return times, last, nil
}

// accountManifest is an account with custom domains, of which the first has the number first.
func accountManifest(id string, first, count int) *adminv1.Manifest {
	m := &adminv1.Manifest{Account: &topologyv1.Account{Id: id}}
	for i := range count {
		m.CustomDomains = append(m.CustomDomains,
			&topologyv1.CustomDomain{Domain: domainName(id, first+i), Mode: topologyv1.CustomDomain_ACCOUNT})
	}
	return m
}

// domainName is no more regular than real ones are: how well names compress is a part of what is
// measured.
func domainName(account string, n int) string {
	hash := fnv.New64a()
	fmt.Fprintf(hash, "%s/%d", account, n)
	return fmt.Sprintf("images-%06d.%s.example", n,
		strings.ToLower(base32.HexEncoding.EncodeToString(hash.Sum(nil)[:5])))
}
