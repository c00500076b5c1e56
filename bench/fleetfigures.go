package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/edgewalk/edgewalk/edgeagent"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// fleetPart is one part of the measurement fleet. Each has a control plane of its own.
type fleetPart struct {
	name, about string
	run         func(context.Context, *fleetTable) error
}

var fleetParts = []fleetPart{
	{"account", "updates in accounts of 20, 20,000 and 200,000 domains", accountFigures},
	{"writes", "64 writers beside 1 and 1,000 light streams", writeFigures},
	{"reach", "from an admin's reply to the last of 100 real edges, and of 1,000 and 10,000 light streams", reachFigures},
	{"admin", "an admin's calls beside 9,500 light streams that follow them", adminFigures},
	{"cost", "the control plane's CPU and encodings for a change at 1,000 light streams", costFigures},
	{"idle", "memory of an idle stream of 5,000, in the clear and with TLS", idleFigures},
	{"state", "1,000,000 domains: the full state, starts and memory", stateFigures},
}

func fleetHelp() string {
	var b strings.Builder
	b.WriteString("Parts, each with a control plane of its own and its embedded etcd (--only writes,cost takes two of them):\n\n")
	for _, p := range fleetParts {
		fmt.Fprintf(&b, "  %-10s %s\n", p.name, p.about)
	}
	b.WriteString(`
A light stream speaks the edges' protocol, acknowledges each step and keeps nothing. They run in a process of their own, on
the machine of the control plane: what they take is not there for it. All of it takes about 40 minutes, 8 GB of memory and
10 GB of disk, and 10,000 connections; --scale 0.01 tries it in one.

`)
	return b.String()
}

// fleetTable is the measurement while it goes on.
type fleetTable struct {
	*bench
	*table
}

func fleetFigures(ctx context.Context, b *bench) error {
	b.verbose = true // it takes long
	t, err := b.measureFleet(ctx)
	if t != nil {
		t.print(b.out)
	}
	return err
}

// measureFleet measures the chosen parts. If one fails, the others are measured all the same.
func (b *bench) measureFleet(ctx context.Context) (*table, error) {
	chosen := fleetParts
	if b.only != "" {
		chosen = nil
		for name := range strings.SplitSeq(b.only, ",") {
			i := slices.IndexFunc(fleetParts, func(p fleetPart) bool { return p.name == name })
			if i < 0 {
				return nil, fmt.Errorf("%w: no part %q; see fleet --help", errUsage, name)
			}
			chosen = append(chosen, fleetParts[i])
		}
	}
	if b.scale <= 0 || b.scale > 1 {
		return nil, fmt.Errorf("%w: --scale %v: want more than 0 and at most 1", errUsage, b.scale)
	}
	raiseOpenFiles()
	t := &fleetTable{b, newTable("figure", "unit", "goal", "measured", "notes")}
	var failed error
	for _, p := range chosen {
		b.note("part %s: %s", p.name, p.about)
		if err := p.run(ctx, t); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return t.table, failed
}

// raiseOpenFiles makes room for a connection of each stream, here and in what is started. Who may
// not raise the bound is shown by the error of the connection that is one too many.
func raiseOpenFiles() {
	const files = 65536
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: files}) == nil {
		return
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) // See above.
	}
}

// openFiles is how many files this process, and those that it starts, may have open.
func openFiles() uint64 {
	var limit syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) // Without an error: Linux has this limit.
	return limit.Max
}

// figure adds a line to the table and shows it. The load average says what the machine did
// meanwhile.
func (t *fleetTable) figure(name, unit, goal, measured, notes string) {
	notes = strings.TrimPrefix(notes+"; load "+strings.Fields(loadAverage())[0], "; ")
	t.add(name, unit, goal, measured, notes)
	t.note("%s: %s %s (%s)", name, measured, unit, notes)
}

// size scales a number, and leaves it at least so many.
func (b *bench) size(n, least int) int { return max(least, int(float64(n)*b.scale)) }

// lasting scales a time.
func (b *bench) lasting(d time.Duration) time.Duration {
	return max(200*time.Millisecond, time.Duration(float64(d)*b.scale))
}

// changesOf is how many changes a figure is taken of.
func (b *bench) changesOf(n int) int {
	if b.count > 0 {
		return b.count
	}
	return b.size(n, 5)
}

// millis returns a duration in milliseconds.
func millis(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) }

// update changes the default endpoint of an account and returns the revision.
func (f *fleet) update(ctx context.Context, account string, n int) (int64, error) {
	response, err := adminv1.NewUrlEndpointServiceClient(f.conn).UpdateUrlEndpoint(ctx,
		&adminv1.UpdateUrlEndpointRequest{
			UrlEndpoint: &topologyv1.UrlEndpoint{
				Name:            "accounts/" + account + "/urlEndpoints/default",
				ResponseHeaders: &topologyv1.ResponseHeaders{Set: map[string]string{marker: strconv.Itoa(n)}},
			},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"response_headers"}},
		})
	return response.GetRevision(), err
}

// turn makes a domain lead to the whole account, or to its default endpoint.
func (f *fleet) turn(ctx context.Context, account, domain string, n int) error {
	d := &topologyv1.CustomDomain{
		Name: "accounts/" + account + "/customDomains/" + domain, Mode: topologyv1.CustomDomain_ACCOUNT,
	}
	if n%2 == 0 {
		d.Mode, d.UrlEndpoint = topologyv1.CustomDomain_URL_ENDPOINT, "default"
	}
	_, err := adminv1.NewCustomDomainServiceClient(f.conn).UpdateCustomDomain(ctx, &adminv1.UpdateCustomDomainRequest{
		CustomDomain: d, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"mode", "url_endpoint"}},
	})
	return err
}

// account makes an account with an endpoint and so many domains.
func (f *fleet) account(ctx context.Context, id string, domains int) error {
	limit := int32(domains)
	for made := 0; ; {
		m := accountManifest(id, made, min(perManifest, domains-made))
		m.Account.Limits = &topologyv1.AccountLimits{CustomDomains: &limit}
		m.UrlEndpoints = []*topologyv1.UrlEndpoint{{Id: "default"}}
		if _, err := f.apply(ctx, m); err != nil {
			return fmt.Errorf("account %s at %d domains: %w", id, made, err)
		}
		if made += len(m.CustomDomains); made >= domains {
			return nil
		}
		f.b.note("account %s has %d domains", id, made)
	}
}

// start starts a control plane for a part, with the account that changes are made in.
func (t *fleetTable) start(ctx context.Context, name string) (*fleet, error) {
	f, err := t.startControlPlane(ctx, name, false)
	if err != nil {
		return nil, err
	}
	return f, f.account(ctx, accountID, 1)
}

// accountFigures are the times of updates by the size of the account. The accounts take turns, so
// that all see the same machine.
func accountFigures(ctx context.Context, t *fleetTable) error {
	f, err := t.start(ctx, "account")
	if err != nil {
		return err
	}
	defer f.stop()
	type account struct {
		id                string
		domains           int
		goal              string
		failed            error
		endpoints, domain []time.Duration
	}
	accounts := []*account{
		{id: "small", domains: 20, goal: "1"}, {id: "middle", domains: t.size(20_000, 40), goal: "1.3"},
		{id: "large", domains: t.size(200_000, 60), goal: "1.5"},
	}
	for _, a := range accounts {
		a.failed = f.account(ctx, a.id, a.domains)
	}
	for i := range t.changesOf(100) {
		for _, a := range accounts {
			if a.failed != nil {
				continue
			}
			began := time.Now()
			if _, a.failed = f.update(ctx, a.id, i); a.failed != nil {
				continue
			}
			a.endpoints = append(a.endpoints, time.Since(began))
			began = time.Now()
			if a.failed = f.turn(ctx, a.id, domainName(a.id, 0), i); a.failed != nil {
				continue
			}
			a.domain = append(a.domain, time.Since(began))
		}
	}
	for _, kind := range []struct {
		name  string
		times func(*account) []time.Duration
	}{
		{"update of an endpoint, p50", func(a *account) []time.Duration { return a.endpoints }},
		{"update of a domain, p50", func(a *account) []time.Duration { return a.domain }},
	} {
		least := median(kind.times(accounts[0]))
		for _, a := range accounts {
			name := fmt.Sprintf("%s, account of %d domains", kind.name, a.domains)
			if a.failed != nil {
				t.figure(name, "ratio", a.goal, "fails", a.failed.Error())
				continue
			}
			times := kind.times(a)
			t.figure(name, "ratio", a.goal, ratio(median(times).Seconds(), least.Seconds()),
				fmt.Sprintf("%s ms, p99 %s; %d updates", millis(median(times)), millis(quantile(times, 0.99)),
					len(times)))
		}
	}
	return ctx.Err()
}

// writers is how many admins write at once.
const writers = 64

func writerID(n int) string { return fmt.Sprintf("writer-%02d", n) }

// writeFigures are the changes a second that many writers make, each in an account of its own.
func writeFigures(ctx context.Context, t *fleetTable) error {
	f, err := t.start(ctx, "writes")
	if err != nil {
		return err
	}
	defer f.stop()
	for i := range writers {
		if err := f.account(ctx, writerID(i), 0); err != nil {
			return err
		}
	}
	opened := 0
	var open []*streams
	defer func() { stopAll(open) }()
	for _, at := range []struct {
		streams int
		goal    string
	}{{1, "1000"}, {t.size(1000, 2), "700"}} {
		s, err := f.startStreams(ctx, opened, at.streams-opened)
		if err != nil {
			return err
		}
		opened, open = at.streams, append(open, s)
		if err := t.writes(ctx, f, s, at.streams, at.goal); err != nil {
			return err
		}
	}
	return nil
}

func stopAll(open []*streams) {
	for _, s := range open {
		s.stop()
	}
}

// writes measures the writers beside so many streams, of which s has the last ones.
func (t *fleetTable) writes(ctx context.Context, f *fleet, s *streams, count int, goal string) error {
	var mu sync.Mutex
	var times []time.Duration
	var last atomic.Int64
	var failed error
	began, cpu := time.Now(), f.controlplane.cpu()
	end := began.Add(t.lasting(15 * time.Second))
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				sent := time.Now()
				revision, err := f.update(ctx, writerID(w), i*2+count%2)
				mu.Lock()
				if failed == nil {
					failed = err
				}
				times = append(times, time.Since(sent))
				last.Store(max(last.Load(), revision))
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	if failed != nil {
		return failed
	}
	took := time.Since(began)
	used := f.controlplane.cpu() - cpu
	reached, err := s.reached(ctx, last.Load())
	if err != nil {
		return err
	}
	t.figure(fmt.Sprintf("%d writers, %d streams", writers, count), "writes/s", goal,
		fmt.Sprintf("%.0f", float64(len(times))/took.Seconds()),
		fmt.Sprintf("a call p50 %s ms, p99 %s; control plane %.2f cores; streams in step %s ms after the last", millis(median(times)), millis(quantile(times, 0.99)),
			used.Seconds()/took.Seconds(), millis(max(0, reached.Sub(began.Add(took))))))
	return nil
}

// reachFigures are the times from a reply to the last edge.
func reachFigures(ctx context.Context, t *fleetTable) error {
	if err := reachAgents(ctx, t, t.size(100, 2)); err != nil {
		return err
	}
	f, err := t.start(ctx, "reach")
	if err != nil {
		return err
	}
	defer f.stop()
	opened := 0
	var open []*streams
	defer func() { stopAll(open) }()
	for _, at := range []struct {
		streams, changes int
		goal             string
	}{{t.size(1000, 2), t.changesOf(200), "100"}, {t.size(10_000, 4), t.changesOf(100), "1000"}} {
		s, err := f.startStreams(ctx, opened, at.streams-opened)
		if err != nil {
			return err
		}
		opened, open = at.streams, append(open, s)
		if err := t.reach(ctx, f, open, at.streams, at.changes, at.goal); err != nil {
			return err
		}
	}
	return nil
}

// reachAgents measures agents of this process.
func reachAgents(ctx context.Context, t *fleetTable, count int) error {
	o, err := t.newOrigin(false)
	if err != nil {
		return err
	}
	f, err := t.startControlPlane(ctx, "agents", false)
	if err != nil {
		return err
	}
	defer f.stop()
	stop, err := f.startAgents(ctx, count)
	defer stop()
	if err != nil {
		return err
	}
	if err := f.applyAndWait(ctx, webManifest(o)); err != nil {
		return err
	}
	times, err := f.changes(ctx, t.changesOf(200))
	if err != nil {
		return err
	}
	for _, of := range []struct {
		name, goal string
		values     []time.Duration
	}{
		{fmt.Sprintf("reply to the last of %d real edges, p99", count), "25", times.received},
		{fmt.Sprintf("reply to the end of WaitApplied with %d real edges, p99", count), "-", times.waitReceived},
	} {
		t.figure(of.name, "ms", of.goal, millis(quantile(of.values, 0.99)),
			fmt.Sprintf("p50 %s; %d changes; all edges in one process", millis(median(of.values)), len(of.values)))
	}
	return nil
}

// startAgents starts agents in this process. stop ends them, also after an error.
func (f *fleet) startAgents(ctx context.Context, count int) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	stop = func() {
		cancel()
		running.Wait()
	}
	for i := range count {
		id := fmt.Sprintf("agent-%03d", i)
		state, err := f.b.folder(id)
		if err != nil {
			return stop, err
		}
		token, err := f.b.tokenFile()
		if err != nil {
			return stop, err
		}
		agent, err := edgeagent.New(edgeagent.Config{
			EdgeTokenFile: token,
			ControlPlane:  []string{f.edgeAddr}, HTTPAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0", StateDir: state,
			CacheDir: filepath.Join(state, "cache"), CacheSize: 16 << 20, ID: id, AllowPrivateOrigins: true,
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return stop, err
		}
		running.Go(func() { agent.Run(ctx) }) // One that ends is missed by the next wait.
		f.edges = append(f.edges, &edge{http: agent.Addresses().HTTP})
	}
	return stop, nil
}

// reach measures light streams. Changes come at random moments, so some of them wait for the pace
// of the streams.
func (t *fleetTable) reach(ctx context.Context, f *fleet, open []*streams, count, changes int, goal string) error {
	var sent, received []time.Duration
	for i := range changes {
		pause(ctx, rand.N(500*time.Millisecond))
		began := time.Now()
		revision, err := f.update(ctx, accountID, i)
		if err != nil {
			return err
		}
		replied := time.Now()
		last, err := reachedAll(ctx, open, revision)
		if err != nil {
			return err
		}
		sent, received = append(sent, last.Sub(began)), append(received, last.Sub(replied))
	}
	t.figure(fmt.Sprintf("reply to the last of %d light streams, p99", count), "ms", goal,
		millis(quantile(received, 0.99)),
		fmt.Sprintf("p50 %s; from the call p50 %s, p99 %s; %d changes", millis(median(received)), millis(median(sent)),
			millis(quantile(sent, 0.99)), changes))
	return nil
}

// reachedAll waits for all of several processes of streams.
func reachedAll(ctx context.Context, open []*streams, revision int64) (last time.Time, err error) {
	for _, s := range open {
		at, err := s.reached(ctx, revision)
		if err != nil {
			return last, err
		}
		if at.After(last) {
			last = at
		}
	}
	return last, nil
}

// adminFigures are the times of calls one after another while every stream follows what they
// change.
func adminFigures(ctx context.Context, t *fleetTable) error {
	f, err := t.start(ctx, "admin")
	if err != nil {
		return err
	}
	defer f.stop()
	s, err := f.startStreams(ctx, 0, t.size(9500, 4))
	if err != nil {
		return err
	}
	defer s.stop()
	endpoints := adminv1.NewUrlEndpointServiceClient(f.conn)
	var writes, reads []time.Duration
	for i := range t.changesOf(200) {
		began := time.Now()
		if _, err := f.update(ctx, accountID, i); err != nil {
			return err
		}
		written := time.Now()
		if _, err := endpoints.GetUrlEndpoint(
			ctx, &adminv1.GetUrlEndpointRequest{Name: "accounts/" + accountID + "/urlEndpoints/default"},
		); err != nil {
			return err
		}
		writes, reads = append(writes, written.Sub(began)), append(reads, time.Since(written))
	}
	for _, of := range []struct {
		name   string
		values []time.Duration
	}{{"an update, p50", writes}, {"a get, p50", reads}} {
		t.figure(fmt.Sprintf("%s, at %d streams", of.name, s.count), "ms", "50", millis(median(of.values)),
			fmt.Sprintf("p99 %s; %d calls without a pause", millis(quantile(of.values, 0.99)), len(of.values)))
	}
	return nil
}

// costFigures are what a change takes of the control plane for each stream. What it takes without
// streams, and what streams take without changes, is not counted.
func costFigures(ctx context.Context, t *fleetTable) error {
	f, err := t.start(ctx, "cost")
	if err != nil {
		return err
	}
	defer f.stop()
	one, err := f.startStreams(ctx, 0, 1)
	if err != nil {
		return err
	}
	defer one.stop()
	count := t.changesOf(300)
	alone, err := f.spend(ctx, []*streams{one}, count)
	if err != nil {
		return err
	}
	more, err := f.startStreams(ctx, 1, t.size(1000, 3)-1)
	if err != nil {
		return err
	}
	defer more.stop()
	pause(ctx, t.lasting(5*time.Second))
	began, before := time.Now(), f.controlplane.cpu()
	pause(ctx, t.lasting(20*time.Second))
	idle := (f.controlplane.cpu() - before).Seconds() / time.Since(began).Seconds()
	encoded, steps := f.metric("edgewalk_controlplane_frames_encoded_total"),
		f.metric("edgewalk_controlplane_steps_total")
	all, err := f.spend(ctx, []*streams{one, more}, count)
	if err != nil {
		return err
	}
	steps = f.metric("edgewalk_controlplane_steps_total") - steps
	encoded = f.metric("edgewalk_controlplane_frames_encoded_total") - encoded
	perChange := all.cpu.Seconds() - idle*all.took.Seconds() - alone.cpu.Seconds()
	t.figure(fmt.Sprintf("CPU a change and stream, of %d", more.count+1), "us", "40",
		fmt.Sprintf("%.1f", perChange/float64(count)/float64(more.count)*1e6),
		fmt.Sprintf("a change without streams %.2f ms; idle streams %.1f us/s each; %d changes", alone.cpu.Seconds()*1e3/float64(count), idle/float64(more.count+1)*1e6, count))
	t.figure("encodings a change", "", "1", ratio(encoded, steps),
		fmt.Sprintf("%.0f frames for %.0f steps to %d streams", encoded, steps, more.count+1))
	return nil
}

// spent is the control plane's CPU and the time that changes took.
type spent struct{ cpu, took time.Duration }

// spend makes changes, each after the one before has reached every edge.
func (f *fleet) spend(ctx context.Context, open []*streams, changes int) (spent, error) {
	began, cpu := time.Now(), f.controlplane.cpu()
	for i := range changes {
		revision, err := f.update(ctx, accountID, i*2+len(open)%2)
		if err == nil {
			_, err = reachedAll(ctx, open, revision)
		}
		if err != nil {
			return spent{}, err
		}
	}
	return spent{f.controlplane.cpu() - cpu, time.Since(began)}, nil
}

// metric reads one metric of the control plane; 0 if it is not there.
func (f *fleet) metric(name string) float64 {
	request, err := http.NewRequest(http.MethodGet, "http://"+f.httpAddr+"/metrics", nil)
	if err != nil {
		return 0
	}
	request.Header.Set("Authorization", "Bearer "+tokenText)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body) // What is missing is 0.
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return n
		}
	}
	return 0
}

// idleFigures are the memory of streams that are sent nothing but bookmarks.
func idleFigures(ctx context.Context, t *fleetTable) error {
	for _, kind := range []struct {
		name, goal string
		secure     bool
	}{{"in the clear", "48", false}, {"with TLS", "64", true}} {
		if err := t.idle(ctx, kind.name, kind.goal, kind.secure); err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
	}
	return nil
}

func (t *fleetTable) idle(ctx context.Context, name, goal string, secure bool) error {
	f, err := t.startControlPlane(ctx, "idle", secure)
	if err != nil {
		return err
	}
	defer f.stop()
	few, err := f.startStreams(ctx, 0, t.size(100, 1))
	if err != nil {
		return err
	}
	defer few.stop()
	before := f.idleMemory(ctx, t.lasting(30*time.Second))
	many, err := f.startStreams(ctx, few.count, t.size(5000, 20))
	if err != nil {
		return err
	}
	defer many.stop()
	// Go collects at least every two minutes, and gives memory back in the seconds after.
	after := f.idleMemory(ctx, t.lasting(150*time.Second))
	perStream := func(before, after int64) float64 { return float64(after-before) / float64(many.count) / 1024 }
	t.figure("an idle stream "+name, "KiB", goal, fmt.Sprintf("%.1f", perStream(before.total, after.total)),
		fmt.Sprintf("%d more streams; resident %s to %s, at most %s", many.count, mib(before.total), mib(after.total),
			mib(after.peak)))
	return ctx.Err()
}

// idleMemory is the control plane's memory after it was left alone: the median of the second half
// of that time.
func (f *fleet) idleMemory(ctx context.Context, d time.Duration) resident {
	pause(ctx, d/2)
	var samples []int64
	for end := time.Now().Add(d / 2); ; pause(ctx, d/40) {
		r := f.controlplane.memory()
		samples = append(samples, r.total)
		if ctx.Err() != nil || time.Now().After(end) {
			r.total = median(samples)
			return r
		}
	}
}
