package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// emptyOrigins is how many origins of the longest walk lack the file.
const emptyOrigins = 5

// walks are the walks that are measured, by how many origins lack the file.
var walks = []int{1, 3, emptyOrigins}

// miss measures what the edge adds to the time to first byte of files that are not cached.
func miss(ctx context.Context, b *bench) error {
	if b.count == 0 {
		b.count = 5000 // of which 50 are above the 99th percentile
	}
	if b.rounds == 0 {
		b.rounds = 5
	}
	var origins []*origin
	for i := range emptyOrigins + 1 {
		o, err := b.newOrigin(i < emptyOrigins)
		if err != nil {
			return err
		}
		origins = append(origins, o)
	}
	last := origins[emptyOrigins]
	f, e, err := b.singleEdge(ctx, noCore, last)
	if err != nil {
		return err
	}
	if err := f.applyAndWait(ctx, walkManifest(origins)); err != nil {
		return err
	}
	servers := []contender{{"edgewalk", e.process, e.http}}
	if b.against != "" {
		other, err := f.secureEdge(b.against, "other", noCore)
		if err != nil {
			return err
		}
		if err := f.applyAndWait(ctx, numbered(walkManifest(origins), 1)); err != nil {
			return err
		}
		servers = append(servers, contender{"other", other.process, other.http})
	}
	peers, err := b.startPeers(ctx, last)
	if err != nil {
		return err
	}
	for _, p := range peers {
		servers = append(servers, contender{p.name, p.process, p.http})
	}
	if err := b.missWithPeers(last, servers); err != nil {
		return err
	}
	if err := b.missesAtOnce(servers); err != nil {
		return err
	}
	return b.missWalks(origins, e)
}

// walkManifest gives each walk two endpoints, because what one learns about the origins is known to
// the other, whose cache still lacks the file.
func walkManifest(origins []*origin) *adminv1.Manifest {
	m := webManifest(origins...)
	ids := m.UrlEndpoints[0].Origins
	m.UrlEndpoints[0].Origins = ids[emptyOrigins:]
	for _, k := range walks {
		for _, state := range []string{"cold", "warm"} {
			m.UrlEndpoints = append(m.UrlEndpoints,
				&topologyv1.UrlEndpoint{Id: walkEndpoint(k, state), Origins: ids[emptyOrigins-k:]})
		}
	}
	return m
}

func walkEndpoint(k int, state string) string { return fmt.Sprintf("walk-%d-%s", k, state) }

// missWithPeers compares edges, their peers and the origin asked directly, each with paths of its
// own.
func (b *bench) missWithPeers(o *origin, servers []contender) error {
	direct, err := dial(strings.TrimPrefix(o.url, "http://"))
	if err != nil {
		return err
	}
	defer direct.close()
	clients := make([]*client, len(servers))
	cpu := make([]time.Duration, len(servers))
	for i, s := range servers {
		if clients[i], err = dial(s.address); err != nil {
			return err
		}
		defer clients[i].close()
		cpu[i] = s.process.cpu()
	}
	asked, took := new(missRounds), make([]missRounds, len(servers))
	for round := range b.rounds {
		var alone []time.Duration
		times := make([][]time.Duration, len(servers))
		for n := range b.count {
			path := "/10240/miss/" + strconv.Itoa(round*b.count+n)
			t, err := timeToFirstByte(direct, path)
			if err != nil {
				return fmt.Errorf("origin: %w", err)
			}
			alone = append(alone, t)
			for _, i := range rand.Perm(len(clients)) { // What one does after its reply hits the next one.
				if t, err = timeToFirstByte(clients[i], path); err != nil {
					return fmt.Errorf("%s: %w", servers[i].name, err)
				}
				times[i] = append(times[i], t)
			}
		}
		asked.note(alone, nil)
		for i := range took {
			took[i].note(times[i], alone)
		}
	}
	t := newTable("miss: time to first byte of 10 KB", "p50", "p99", "added to the origin's p50", "added to its p99",
		"edgewalk/it, added p50", "p99", "CPU time a miss")
	t.add("origin", ms(median(asked.p50)), ms(median(asked.p99)), "-", "-", "-", "-", "-")
	const part = "a miss of 10 KB: time to first byte, added to the origin's"
	p50, p99 := figure{part, "p50", map[string]string{}}, figure{part, "p99", map[string]string{}}
	for i, s := range servers {
		m := &took[i]
		cpu[i] = s.process.cpu() - cpu[i]
		p50.values[s.name], p99.values[s.name] = ms(median(m.added50)), ms(median(m.added99))
		ratio50, ratio99 := pairedRatio(took[0].added50, m.added50), pairedRatio(took[0].added99, m.added99)
		if s.name == "nginx" {
			p50.values[ratioOf], p99.values[ratioOf] = ratio50, ratio99
		}
		t.add(s.name, ms(median(m.p50)), ms(median(m.p99)), ms(median(m.added50)), ms(median(m.added99)),
			ratio50, ratio99, ms(cpu[i]/time.Duration(b.rounds*b.count)))
	}
	b.figures = append(b.figures, p50, p99)
	t.print(b.out)
	fmt.Fprintf(b.out, "Medians of %d rounds of %d misses, in which the servers are asked in a random order each time; a ratio is the median of those of the rounds.\n", b.rounds, b.count)
	return nil
}

// missRounds are quantiles of each round: of the times to first byte, and what they add
// to those of the origin.
type missRounds struct{ p50, p99, added50, added99 []time.Duration }

func (m *missRounds) note(times, origin []time.Duration) {
	p50, p99 := median(times), quantile(times, 0.99)
	m.p50, m.p99 = append(m.p50, p50), append(m.p99, p99)
	if origin != nil {
		m.added50 = append(m.added50, p50-median(origin))
		m.added99 = append(m.added99, p99-quantile(origin, 0.99))
	}
}

// clientsAtOnce is how many connections ask for files that are not cached at the same time.
const clientsAtOnce = 64

// missesAtOnce compares what misses cost that come from many clients at once.
func (b *bench) missesAtOnce(servers []contender) error {
	perSecond, cpu := make([][]float64, len(servers)), make([][]time.Duration, len(servers))
	for round := range b.rounds {
		for _, i := range rand.Perm(len(servers)) {
			s := servers[i]
			used, start := s.process.cpu(), time.Now()
			n, err := b.missFrom(s.address, "/10240/at-once/"+strconv.Itoa(round))
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			perSecond[i] = append(perSecond[i], float64(n)/time.Since(start).Seconds())
			cpu[i] = append(cpu[i], (s.process.cpu()-used)/time.Duration(n))
		}
	}
	t := newTable("misses of 10 KB at once", "misses/s", "CPU time a miss", "edgewalk/it, misses/s", "CPU time")
	for i, s := range servers {
		t.add(s.name, strconv.Itoa(int(median(perSecond[i]))), ms(median(cpu[i])),
			pairedRatio(perSecond[0], perSecond[i]), pairedRatio(cpu[0], cpu[i]))
	}
	t.print(b.out)
	fmt.Fprintf(b.out, "Medians of %d rounds of %d misses by %d clients, in which the servers are asked in a random order each time. The clients and the origin take their part of the same processors.\n",
		b.rounds, b.count, clientsAtOnce)
	return nil
}

// missFrom asks a server for files below a path that are not cached, from all clients. It says
// how many it got.
func (b *bench) missFrom(address, below string) (int, error) {
	each := max(1, b.count/clientsAtOnce)
	var asking errgroup.Group
	for n := range clientsAtOnce {
		asking.Go(func() error {
			c, err := dial(address)
			if err != nil {
				return err
			}
			defer c.close()
			for i := range each {
				if _, err := timeToFirstByte(c, fmt.Sprintf("%s/%d/%d", below, n, i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return each * clientsAtOnce, asking.Wait()
}

// missWalks measures walks over origins that lack the file, beside asking the same origins one
// after the other.
func (b *bench) missWalks(origins []*origin, e *edge) error {
	edge, err := dial(e.http)
	if err != nil {
		return err
	}
	defer edge.close()
	direct := make([]*client, len(origins))
	for i, o := range origins {
		if direct[i], err = dial(strings.TrimPrefix(o.url, "http://")); err != nil {
			return err
		}
		defer direct[i].close()
	}
	t := newTable("walk: time to first byte", "origins without the file", "p50", "p99",
		"added to asking the origins, p50", "p99")
	for _, k := range walks {
		var asked []time.Duration
		times := map[string][]time.Duration{}
		for n := range b.count {
			path := "/10240/walk-" + strconv.Itoa(k) + "/" + strconv.Itoa(n)
			var sum time.Duration
			for _, c := range direct[emptyOrigins-k:] {
				r, err := c.get(path)
				if err != nil {
					return err
				}
				sum += r.firstByte
			}
			asked = append(asked, sum)
			for _, state := range []string{"cold", "warm"} {
				took, err := timeToFirstByte(edge, "/"+walkEndpoint(k, state)+path)
				if err != nil {
					return err
				}
				times[state] = append(times[state], took)
			}
		}
		t.add("the origins, asked in turn", strconv.Itoa(k), ms(median(asked)), ms(quantile(asked, 0.99)), "-", "-")
		for _, state := range []string{"cold", "warm"} {
			own := times[state]
			t.add("edgewalk, "+state, strconv.Itoa(k), ms(median(own)), ms(quantile(own, 0.99)),
				ms(median(own)-median(asked)), ms(quantile(own, 0.99)-quantile(asked, 0.99)))
		}
	}
	t.print(b.out)
	return nil
}

func timeToFirstByte(c *client, path string) (time.Duration, error) {
	r, err := c.get(path)
	if err == nil && r.status != 200 {
		err = fmt.Errorf("GET %s: status %d", path, r.status)
	}
	return r.firstByte, err
}
