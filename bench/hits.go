package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// contender is a server under one load.
type contender struct {
	name    string
	process *process
	address string
}

// load is a kind of traffic, and who is measured under it.
type load struct {
	name       string
	path       string
	run        func(ctx context.Context, address, path string, d time.Duration) (throughput, error)
	contenders []contender
}

// taken is what was measured of one contender, a value a round.
type taken struct {
	requests, bytes, perCPU []float64
	p99                     []time.Duration
}

// hits measures cached files.
func hits(ctx context.Context, b *bench) error {
	loads, err := b.hitLoads(ctx)
	if err != nil {
		return err
	}
	if b.duration == 0 {
		b.duration = 5 * time.Second
	}
	if b.rounds == 0 {
		b.rounds = 5
	}
	if b.only != "" {
		loads = slices.DeleteFunc(loads, func(l load) bool { return l.name != b.only })
	}
	if len(loads) == 0 {
		return fmt.Errorf("%w: no load is named %q", errUsage, b.only)
	}
	if b.profile != "" {
		return b.profileHits(ctx, loads[0])
	}
	t := newTable("hits", "server", "requests/s", "MB/s", "p99", "requests per CPU second", "edgewalk/it, requests/s",
		"edgewalk/it, per CPU second")
	var failed []error
	for _, l := range loads {
		all, err := b.measure(ctx, &l)
		if err != nil && ctx.Err() != nil {
			return err
		}
		if err != nil { // The others are worth having all the same.
			failed = append(failed, err)
			t.add(l.name, "failed", "-", "-", "-", "-", "-", "-")
			continue
		}
		f := figure{part: "requests per CPU second, " + b.placed(), what: title(l.name), values: map[string]string{}}
		for i, c := range l.contenders {
			m, own := &all[i], &all[0]
			p99 := "-"
			if median(m.p99) > 0 {
				p99 = ms(median(m.p99))
			}
			t.add(l.name, c.name, fmt.Sprintf("%.0f", median(m.requests)), fmt.Sprintf("%.1f", median(m.bytes)/1e6),
				p99, fmt.Sprintf("%.0f", median(m.perCPU)),
				pairedRatio(own.requests, m.requests), pairedRatio(own.perCPU, m.perCPU))
			f.values[c.name] = fmt.Sprintf("%.0f", median(m.perCPU))
			if c.name == "nginx" {
				f.values[ratioOf] = pairedRatio(own.perCPU, m.perCPU)
			}
		}
		b.figures = append(b.figures, f)
	}
	t.print(b.out)
	fmt.Fprintf(b.out, "Medians of %d rounds of %s, in each of which all are taken in a random order; a ratio is the median of those of the rounds; %d connections (h2: 16 with 8 streams each; new TLS: one request each, without resumption); %s.\n", b.rounds, b.duration, connections, b.placed())
	return errors.Join(failed...)
}

// title is the name of a load for readers of a summary.
func title(load string) string {
	return strings.NewReplacer("h1 TLS", "HTTP/1.1 over TLS,", "h2 TLS", "HTTP/2 over TLS,", "h1", "HTTP/1.1,",
		"new TLS", "new TLS connections").Replace(load)
}

// measure loads each contender once a round. A load that breaks off once, as on a
// machine that is busy for a moment, is repeated.
func (b *bench) measure(ctx context.Context, l *load) ([]taken, error) {
	all := make([]taken, len(l.contenders))
	for range b.rounds {
		for _, at := range rand.Perm(len(l.contenders)) { // Nobody always follows the same one.
			c := l.contenders[at]
			err := b.round(ctx, l, c, &all[at])
			if err != nil && ctx.Err() == nil {
				b.note("%s, %s, again: %v", l.name, c.name, err)
				err = b.round(ctx, l, c, &all[at])
			}
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", l.name, c.name, err)
			}
		}
	}
	return all, nil
}

// placed says which cores servers and generators had.
func (b *bench) placed() string {
	if b.cores > 1 {
		return fmt.Sprintf("servers on %d cores, of which the generator has one too", b.cores)
	}
	return "server and generator on a core each"
}

// round loads one contender once.
func (b *bench) round(ctx context.Context, l *load, c contender, m *taken) error {
	before, start := c.process.cpu(), time.Now()
	got, err := l.run(ctx, c.address, l.path, b.duration)
	if err != nil {
		return err
	}
	used, took := c.process.cpu()-before, time.Since(start)
	m.requests = append(m.requests, got.requests)
	m.bytes = append(m.bytes, got.bytes)
	m.p99 = append(m.p99, got.p99)
	m.perCPU = append(m.perCPU, got.requests*took.Seconds()/max(used, time.Millisecond).Seconds())
	b.note("%-14s %-9s %8.0f requests/s, %4.0f%% of a core", l.name, c.name, got.requests,
		100*used.Seconds()/took.Seconds())
	return nil
}

// hitLoads starts the servers and puts the files into their caches.
func (b *bench) hitLoads(ctx context.Context) ([]load, error) {
	if !have("wrk") {
		return nil, fmt.Errorf("without wrk there is no load")
	}
	o, err := b.newOrigin(false)
	if err != nil {
		return nil, err
	}
	core := serverCore
	if b.cores > 1 {
		core = noCore
	}
	f, e, err := b.singleEdge(ctx, core, o)
	if err != nil {
		return nil, err
	}
	plain, secure := []contender{{"edgewalk", e.process, e.http}}, []contender{{"edgewalk", e.process, e.https}}
	if b.against != "" {
		other, err := f.secureEdge(b.against, "other", core)
		if err != nil {
			return nil, err
		}
		if err := f.applyAndWait(ctx, numbered(webManifest(o), 1)); err != nil {
			return nil, err
		}
		plain, secure = append(plain, contender{"other", other.process, other.http}),
			append(secure, contender{"other", other.process, other.https})
	}
	nginx, err := b.startNginx(ctx, core, o)
	if err != nil {
		return nil, err
	}
	if nginx != nil {
		plain, secure = append(plain, contender{"nginx", nginx.process, nginx.http}),
			append(secure, contender{"nginx", nginx.process, nginx.https})
	}
	varnish, err := b.startVarnish(ctx, core, o)
	if err != nil {
		return nil, err
	}
	if varnish != nil {
		plain = append(plain, contender{"varnish", varnish.process, varnish.http})
	}
	var loads []load
	paths := map[string]string{
		"1 KB": "/1024/hit", "10 KB": "/10240/hit", "100 KB": "/102400/hit", "1 MB": "/1048576/hit",
	}
	for _, c := range plain {
		if err := warm(c.address, slices.Collect(maps.Values(paths))...); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	bare, err := b.startBare(ctx, core)
	if err != nil {
		return nil, err
	}
	withBare := append(slices.Clone(plain), contender{"bare loop", bare.process, bare.http})
	for _, size := range hitSizes {
		loads = append(loads, load{"h1 " + size, paths[size], wrk, withBare})
	}
	loads = append(loads,
		load{"h1 304", paths["1 KB"], wrkWith("If-None-Match: *"), withBare},
		load{"h1 1 KB of 1 MB", paths["1 MB"], wrkWith("Range: bytes=1000-2023"), plain},
	)
	if have("h2load") {
		loads = append(loads, load{"h1 TLS 1 KB", paths["1 KB"], h1load, secure},
			load{"h1 TLS 100 KB", paths["100 KB"], h1load, secure})
		for _, size := range hitSizes {
			loads = append(loads, load{"h2 TLS " + size, paths[size], h2load, secure})
		}
	}
	return append(loads, load{"new TLS", paths[hitSizes[0]], handshakes, secure}), nil
}

var hitSizes = []string{"1 KB", "10 KB", "100 KB", "1 MB"}

// warm brings files into a cache and checks that they stay there.
func warm(address string, paths ...string) error {
	c, err := dial(address)
	if err != nil {
		return err
	}
	defer c.close()
	for _, path := range paths {
		for range 2 {
			r, err := c.get(path)
			if err != nil {
				return err
			}
			if r.status != 200 {
				return fmt.Errorf("GET %s: status %d", path, r.status)
			}
		}
		if err := until(
			3*time.Second, time.Millisecond, func() (bool, error) { r, err := c.get(path); return isHit(r.head), err },
		); err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
	}
	return nil
}

// profileHits records what the edge does under the first load.
func (b *bench) profileHits(ctx context.Context, l load) error {
	perf, err := exec.LookPath("perf")
	if err != nil {
		return fmt.Errorf("perf is not in PATH: apt-get install linux-perf")
	}
	seconds := strconv.Itoa(max(1, int(b.duration.Seconds())-1))
	record := exec.CommandContext(ctx, perf, "record", "-q", "-g", "-F", "499", "-o", b.profile, "-p",
		strconv.Itoa(l.contenders[0].process.cmd.Process.Pid), "--", "sleep", seconds)
	if err := record.Start(); err != nil {
		return err
	}
	got, err := l.run(ctx, l.contenders[0].address, l.path, b.duration)
	if err != nil {
		return err
	}
	if err := record.Wait(); err != nil {
		return fmt.Errorf("perf: %w", err)
	}
	fmt.Printf("%.0f requests/s while recorded; see perf report -i %s --no-children\n", got.requests, b.profile)
	return nil
}
