package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// An edge has at most 256 requests waiting for one origin and refuses further ones, so the
	// clients that wait share files.
	stalledFiles = 250
	// stallFor is how long an origin may stall before the edge gives it up. It outlasts a round.
	stallFor = 60 * time.Second
)

// trouble measures what an origin in trouble costs those who do not want anything of it: files of
// other endpoints while many clients wait for one that stalls, and a walk past one that is dead.
func trouble(ctx context.Context, b *bench) error {
	if b.count == 0 {
		b.count = 2000
	}
	if b.rounds == 0 {
		b.rounds = 3
	}
	sound, err := b.newOrigin(false)
	if err != nil {
		return err
	}
	stalls, err := b.newStall()
	if err != nil {
		return err
	}
	dead, err := b.freeAddress()
	if err != nil {
		return err
	}
	f, e, err := b.singleEdge(ctx, noCore, sound)
	if err != nil {
		return err
	}
	if err := f.applyAndWait(ctx, troubleManifest(sound, stalls, "http://"+dead, b.rounds)); err != nil {
		return err
	}
	if err := b.besideAStall(ctx, e, stalls); err != nil {
		return err
	}
	return b.pastADeadOrigin(e)
}

// troubleManifest has an endpoint with a stalling origin of its own for each round, as breakers
// remember the one before, and one whose first origin is dead.
func troubleManifest(sound *origin, stalls *stall, dead string, rounds int) *adminv1.Manifest {
	m := webManifest(sound)
	web := func(id, url string) *topologyv1.Origin {
		return &topologyv1.Origin{Id: id, Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: url}}}
	}
	for round := range rounds {
		id := stalledEndpoint(round)
		o := web(id, stalls.url)
		o.Timeouts = &topologyv1.OriginTimeouts{FirstByte: durationpb.New(stallFor)}
		m.Origins = append(m.Origins, o)
		m.UrlEndpoints = append(m.UrlEndpoints,
			&topologyv1.UrlEndpoint{Id: id, Origins: []string{id}, WalkDeadline: durationpb.New(stallFor)})
	}
	m.Origins = append(m.Origins, web("dead", dead))
	m.UrlEndpoints = append(m.UrlEndpoints,
		&topologyv1.UrlEndpoint{Id: "dead", Origins: append([]string{"dead"}, m.UrlEndpoints[0].Origins...)})
	return m
}

func stalledEndpoint(round int) string { return "stalled-" + strconv.Itoa(round) }

// A stall is a web server that does not answer until it is let go.
type stall struct {
	url     string
	waiting atomic.Int64

	mu   sync.Mutex
	gate chan struct{}
}

func (b *bench) newStall() (*stall, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &stall{url: "http://" + l.Addr().String(), gate: make(chan struct{})}
	server := &http.Server{Handler: s}
	go server.Serve(l) // Ends with Close.
	b.closers = append(b.closers, func() { server.Close() })
	return s, nil
}

// ServeHTTP implements [http.Handler].
func (s *stall) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	select {
	case <-gate:
	case <-r.Context().Done():
	}
	http.Error(w, "no such file", http.StatusNotFound)
}

// release answers who waits, and lets the next ones wait.
func (s *stall) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.gate)
	s.gate = make(chan struct{})
}

// besideAStall measures another endpoint's hits and misses, without and with a crowd that waits for
// an origin that stalls.
func (b *bench) besideAStall(ctx context.Context, e *edge, stalls *stall) error {
	c, err := dial(e.http)
	if err != nil {
		return err
	}
	defer c.close()
	kinds := []string{"hit of 1 KB", "miss of 10 KB"}
	times := map[string]map[bool][]time.Duration{kinds[0]: {}, kinds[1]: {}}
	measure := func(round int, crowded bool) error {
		for n := range b.count {
			for kind, path := range map[string]string{
				kinds[0]: "/1024/hit", kinds[1]: fmt.Sprintf("/10240/%d/%t/%d", round, crowded, n),
			} {
				took, err := timeToFirstByte(c, path)
				if err != nil {
					return err
				}
				times[kind][crowded] = append(times[kind][crowded], took)
			}
		}
		return nil
	}
	for round := range b.rounds {
		if err := measure(round, false); err != nil {
			return err
		}
		waited, err := b.waitBeside(ctx, e, stalls, round, func() error { return measure(round, true) })
		if err != nil {
			return err
		}
		b.note("round %d: %d clients waited", round, waited)
	}
	t := newTable("trouble: an endpoint beside one whose origin stalls", "idle: p50", "p99",
		fmt.Sprintf("%d clients wait: p50", stalledClients), "p99", "p99 to idle", "goal")
	for _, kind := range kinds {
		idle, crowded := times[kind][false], times[kind][true]
		t.add(kind, ms(median(idle)), ms(quantile(idle, 0.99)), ms(median(crowded)), ms(quantile(crowded, 0.99)),
			ratio(quantile(crowded, 0.99).Seconds(), quantile(idle, 0.99).Seconds()), "2.00")
	}
	t.print(b.out)
	return nil
}

// stalledClients is how many clients wait for the origin that stalls.
const stalledClients = 1000

// waitBeside has clients wait for files of a stalling origin while what is measured runs, and
// returns how many still waited at its end.
func (b *bench) waitBeside(
	ctx context.Context, e *edge, stalls *stall, round int, measured func() error,
) (int64, error) {
	var waiting sync.WaitGroup
	var left atomic.Int64
	clients := make([]*client, stalledClients)
	for i := range clients {
		c, err := dial(e.http)
		if err != nil {
			return 0, err
		}
		defer c.close()
		clients[i] = c
	}
	for i, c := range clients {
		left.Add(1)
		waiting.Go(func() {
			defer left.Add(-1)
			// A 404 in the end; it counts until when it waits.
			c.get(fmt.Sprintf("/%s/%d", stalledEndpoint(round), i%stalledFiles))
		})
	}
	defer waiting.Wait()
	defer stalls.release()
	within, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := poll(
		within, 10*time.Millisecond, func() bool { return stalls.waiting.Load() == stalledFiles },
	); err != nil {
		return 0, fmt.Errorf("the origin has %d requests waiting, not %d: %w", stalls.waiting.Load(), stalledFiles, err)
	}
	if err := measured(); err != nil {
		return 0, err
	}
	if n := left.Load(); n != stalledClients {
		return n, fmt.Errorf("%d of %d clients still waited at the end", n, stalledClients)
	}
	return stalledClients, nil
}

// pastADeadOrigin measures misses of a walk whose first origin refuses connections, beside those of
// the same walk without it.
func (b *bench) pastADeadOrigin(e *edge) error {
	c, err := dial(e.http)
	if err != nil {
		return err
	}
	defer c.close()
	times := map[string][]time.Duration{}
	for n := range b.count {
		for walk, prefix := range map[string]string{"without": "", "with": "/dead"} {
			took, err := timeToFirstByte(c, prefix+"/10240/past/"+strconv.Itoa(n))
			if err != nil {
				return err
			}
			times[walk] = append(times[walk], took)
		}
	}
	t := newTable("trouble: a walk past a dead first origin", "without it: p50", "p99", "with it: p50", "p99",
		"added to p50", "goal")
	with, without := times["with"], times["without"]
	t.add("miss of 10 KB", ms(median(without)), ms(quantile(without, 0.99)), ms(median(with)), ms(quantile(with, 0.99)),
		ms(median(with)-median(without)), "1 ms")
	t.print(b.out)
	return nil
}
