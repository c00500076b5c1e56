package edgeagent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/edgewalk/edgewalk/edgeagent/internal/certs"
	"github.com/edgewalk/edgewalk/edgeagent/internal/control"
	"github.com/edgewalk/edgewalk/edgeagent/internal/defaultimage"
	"github.com/edgewalk/edgewalk/edgeagent/internal/edgehttp"
	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	"github.com/edgewalk/edgewalk/edgeagent/internal/identity"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/series"
	"github.com/edgewalk/edgewalk/edgeagent/internal/tracing"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/buildinfo"
	"github.com/edgewalk/edgewalk/internal/certfile"
	"github.com/edgewalk/edgewalk/internal/debughttp"
	"github.com/edgewalk/edgewalk/internal/listen"
	"github.com/edgewalk/edgewalk/internal/systemd"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Agent is an edge agent.
type Agent struct {
	cfg       Config
	registry  *prometheus.Registry
	listeners listeners
	id        string
	identity  *identity.Identity // nil for an edge that does not join

	purges  *purges.Table
	store   *objects.Store
	client  *origin.Client
	walker  *walk.Walker
	images  *defaultimage.Keeper
	cache   *httpcache.Cache
	table   *route.Table
	certs   *certs.Certificates
	server  *edgehttp.Server
	control *control.Control
	// settings are those that the control plane sent last. What is built before control reads them
	// too.
	settings atomic.Pointer[edgev1.Welcome_Settings]
	loop     atomic.Pointer[loop] // what loopID returned last

	accessLog *logFile          // nil for none
	traces    *tracing.Exporter // nil for none

	// ballast is never touched, so it takes addresses but no memory. The garbage collector, which
	// runs when the heap has doubled (https://go.dev/doc/gc-guide#GOGC), counts it as heap.
	// Otherwise it would run every few hundred misses on an edge that holds little, and the slowest
	// hundredth of them would be those that it ran beside.
	ballast []byte
}

// listeners are the agent's sockets; all but metrics may be nil.
type listeners struct{ http, https, metrics, debug net.Listener }

// own are the addresses that the sockets listen at.
func (l *listeners) own() (all []netip.AddrPort) {
	for _, one := range []net.Listener{l.http, l.https, l.metrics, l.debug} {
		if one == nil {
			continue
		}
		if at, err := netip.ParseAddrPort(one.Addr().String()); err == nil {
			all = append(all, at)
		}
	}
	return all
}

// New binds the sockets, opens the folders, and brings back the last good topology, so that Run
// serves at once. An error says which flag to change, and leaves nothing behind. An agent that New
// returned must be Run.
func New(cfg Config) (*Agent, error) {
	cfg.setDefaults()
	p, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, registry: prometheus.NewRegistry()}
	a.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildinfo.Collector())
	if err := a.build(p); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// build makes the parts, each after what it depends on.
func (a *Agent) build(p parsed) (err error) {
	cfg := &a.cfg
	if a.listeners, err = cfg.listen(); err != nil {
		return err
	}
	switch a.id, err = control.ID(cfg.StateDir, cfg.ID); {
	case a.id == "":
		return fmt.Errorf("--state-dir: %w", err)
	case err != nil:
		cfg.Logger.Error("the edge has another id at each start: its own cannot be read", "id", a.id, "err", err)
	}
	files, err := listen.OpenFiles()
	if err != nil {
		return err
	}
	capacity := fit(files)
	if capacity != wanted {
		cfg.Logger.Info("few files may be open; the edge does less at once", "limit", files, "connections",
			capacity.connections,
			"requests", capacity.requests, "fills", capacity.fills, "fix",
			fmt.Sprintf("raise the limit on open files (ulimit -n) to %d", wanted.files()+spareFiles))
	}
	memory := memoryShare(debug.SetMemoryLimit(-1))
	a.ballast = make([]byte, memory/8)
	a.purges = purges.New(nil)
	a.store, err = objects.Open(objects.Config{
		Decode: httpcache.Decode, Unwanted: a.purged, Dir: cfg.CacheDir, MaxBytes: cfg.CacheSize, MemoryBytes: memory,
		WindowBytes: memory, IdleFiles: capacity.idle, Logger: cfg.Logger, Registerer: a.registry,
	})
	if err != nil {
		return fmt.Errorf("--cache-dir: %w", err)
	}
	originConfig := origin.Config{
		Version: cfg.Version, AllowPrivate: cfg.AllowPrivateOrigins, AllowCIDRs: p.allow,
		Own:                     a.listeners.own(),
		AllowAmbientCredentials: cfg.AllowAmbientCredentials, VerifyTLS: cfg.VerifyOriginTLS, LoopID: a.loopID,
		MediaURL: a.mediaURL, MediaToken: p.token, Registerer: a.registry,
	}
	controlTLS, err := a.openIdentity(p)
	if err != nil {
		return err
	}
	originConfig.MediaTLS = controlTLS
	a.client = origin.New(originConfig)
	tracer, err := a.openTraces()
	if err != nil {
		return err
	}
	bound := series.NewBound(cfg.MetricsMaxSeries)
	a.walker = walk.New(walk.Config{
		Client: a.client, Purged: a.forgets, Registerer: a.registry, Tracer: tracer,
		Series: bound, HasEndpoint: a.hasEndpoint, HasOrigin: a.hasOrigin,
	})
	a.images = defaultimage.New(defaultimage.Config{
		Dir: filepath.Join(cfg.StateDir, "default-images"), Walker: a.walker, MaxBytes: cfg.CacheSize / 8,
		Occupy: a.store.Occupy, Logger: cfg.Logger,
	})
	// A request whose file the kernel sends has a thread while the disk does not answer. Go ends a
	// process of more than 10,000.
	debug.SetMaxThreads(10_000 + capacity.requests)
	a.cache, err = httpcache.New(httpcache.Config{
		Store: a.store, Purges: a.purges, Walker: a.walker, DefaultImage: a.images.Lookup, MaxFills: capacity.fills,
		Logger: cfg.Logger, Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	a.table = route.New(a.hooks())
	a.certs, err = certs.New(certs.Config{
		Dir: filepath.Join(cfg.StateDir, "certificates"), Size: cfg.CertStoreSize, Ready: cfg.CertCache,
		Root: a.table.Root, Fetch: a.fetchCertificates, Logger: cfg.Logger, Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	accessLog, err := openLogFile(cfg.AccessLog)
	if err != nil {
		return err
	}
	serverConfig := edgehttp.Config{
		Table: a.table, Cache: a.cache, LoopID: a.loopID, HTTP: a.listeners.http, HTTPS: a.listeners.https,
		TrustedProxies: p.proxies, MaxConnections: capacity.connections, MaxRequests: capacity.requests,
		AccountHosts: cfg.AccountHosts, Domains: a.certs, Logger: cfg.Logger, Registerer: a.registry,
		Series: bound, AccessLogSample: cfg.AccessLogSample, Thumbprint: a.thumbprint,
		Traces: a.traces != nil,
	}
	switch {
	case cfg.Requests != nil:
		serverConfig.AccessLog = cfg.Requests
	case accessLog != nil:
		a.accessLog, serverConfig.AccessLog = accessLog, accessLog
	}
	for i := range cfg.TLSCerts {
		serverConfig.Certificates = append(serverConfig.Certificates,
			certfile.Pair{Cert: cfg.TLSCerts[i], Key: cfg.TLSKeys[i]})
	}
	if a.server, err = edgehttp.New(serverConfig); err != nil {
		return err
	}
	// Control comes last, because it restores the topology, and with that everything above begins
	// to work.
	a.control, err = control.New(control.Config{
		Addresses: cfg.ControlPlane, Token: p.token, TLS: controlTLS, Insecure: cfg.InsecureListen,
		StateDir: cfg.StateDir, StateKeyFile: cfg.StateKeyFile, ID: a.id, Region: cfg.Region, Version: cfg.Version,
		BootID: uuid.NewString(), HTTPAddress: a.httpAddress, MetricsAddress: a.Addresses().Metrics,
		ServesHTTPS: cfg.HTTPSAddr != "" || len(cfg.TrustedProxies) > 0,
		Table:       a.table, Settings: &a.settings,
		InStep: a.inStep, Report: a.report, ReportSoon: a.server.PendingAdded(), Answer: a.answer,
		Logger: cfg.Logger, Registerer: a.registry,
	})
	if err != nil {
		return fmt.Errorf("--state-dir: %w", err)
	}
	a.purges.AssumeMissed(missedFor) // purges of what is stored may have come while the edge was down
	return nil
}

// memoryShare returns the memory for cached hits, and the same for fills that are not stored on
// disk, under the operator's limit on all memory (GOMEMLIMIT): half of it for both together. If
// what is in use came close to the limit, the garbage collector would run all the time.
func memoryShare(limit int64) int64 { return min(max(limit/4, 1<<20), 128<<20) }

const (
	// missedFor is how long hits are revalidated at most because purges may have been missed, if no
	// control plane says before that none was.
	missedFor = 2 * time.Second
	// A timer of stopCheckEvery that is late by stoppedFor shows that the process was stopped, as
	// by SIGSTOP, or that the machine slept.
	stopCheckEvery = 100 * time.Millisecond
	stoppedFor     = time.Second
)

// watchStops has the cache revalidated whenever the process has stood still, until ctx ends.
func (a *Agent) watchStops(ctx context.Context) error {
	tick := time.NewTicker(stopCheckEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			now := time.Now()
			if stoodStill(last, now) {
				a.purges.AssumeMissed(missedFor)
			}
			last = now
		}
	}
}

// stoodStill reports whether the process stood still between two looks at the clock. It goes by the
// wall clock, because the monotonic one and timers do not count what the machine sleeps.
func stoodStill(last, now time.Time) bool { return now.Round(0).Sub(last.Round(0)) > stoppedFor }

// hooks carry what a step says to the parts that are not the routing table.
func (a *Agent) hooks() route.Hooks {
	return route.Hooks{
		// What was stored under another history is never looked up: keys hold the epoch.
		Epoch: func(string) { a.purges.ForgetAll() },
		Purge: func(uid string, p *topologyv1.Purge, revision int64) {
			if err := a.purges.Apply(purgeOf(uid, p, revision)); err != nil {
				a.cfg.Logger.Error(
					"purge cannot be applied; everything of the account is purged instead",
					"account",
					uid,
					"err",
					err,
				)
				a.purges.Floor(uid, revision, revision)
			}
		},
		Floor: func(uid string, f *topologyv1.PurgeFloor) {
			a.purges.Floor(uid, f.GetStaleBefore(), f.GetDropBefore())
			a.purges.Forget(uid, min(f.GetStaleBefore(), f.GetDropBefore()))
		},
		Applied: a.images.Apply,
		Certificates: func(root *route.Root, changed []*topology.Certificate, full, keys bool) {
			a.certs.Changed(root, changed, full, keys)
		},
		Gone: func(uid string) { a.purges.Forget(uid, math.MaxInt64) },
	}
}

// inStep records that a control plane has said that the edge has all there is.
func (a *Agent) inStep(first bool) {
	a.purges.NoneMissed()
	if first {
		a.certs.Connected()
	}
}

// fetchCertificates asks the control plane for certificates. It fails while there is no Control.
func (a *Agent) fetchCertificates(
	ctx context.Context, ids []topology.CertificateID,
) ([]*topologyv1.SealedCertificate, error) {
	return a.control.FetchCertificates(ctx, ids)
}

// purged reports whether a stored reply will never be used again.
func (a *Agent) purged(h *objects.Head) bool { return a.purges.Check(&h.Scope, h.Asof) == purges.Hard }

// forgets reports whether a walk may no longer use an answer that it remembers.
func (a *Agent) forgets(account, endpoint, path, query string, asof int64, asked time.Time) bool {
	scope := &purges.Scope{Account: account, Endpoint: endpoint, Path: path, Query: query}
	return a.purges.CheckAsked(scope, asof, asked, time.Now()) != purges.None
}

// loopID returns the name of the deployment in Via and CDN-Loop. All its edges have the same one,
// and other deployments, which may be its origins, have another.
func (a *Agent) loopID() string {
	shared := a.table.Root().SharedHost()
	if last := a.loop.Load(); last != nil && last.sharedHost == shared {
		return last.id
	}
	hash := sha256.Sum256([]byte(shared))
	id := origin.DefaultLoopID + "-" + hex.EncodeToString(hash[:4])
	a.loop.Store(&loop{shared, id})
	return id
}

// loop is what loopID returns for a shared host.
type loop struct{ sharedHost, id string }

// currentOrigin returns the origin of an account with an id, nil if there is none.
func (a *Agent) currentOrigin(account, id string) *topology.Origin {
	owner := a.table.Root().Account(account)
	if owner == nil {
		return nil
	}
	return owner.Origin(id)
}

// thumbprint returns the end of each answer to an HTTP challenge of ACME (RFC 8555 8.3).
func (a *Agent) thumbprint() string { return a.settings.Load().GetAcmeThumbprint() }

// mediaURL returns the URL of the Media Library, which the control plane names, empty before the
// first topology.
func (a *Agent) mediaURL() string { return a.settings.Load().GetMediaUrl() }

func (c *Config) listen() (l listeners, err error) {
	l.http = c.HTTPListener
	for _, one := range []struct {
		flag, address string
		to            *net.Listener
	}{
		{"--http-addr", c.HTTPAddr, &l.http}, {"--https-addr", c.HTTPSAddr, &l.https},
		{"--metrics-addr", c.MetricsAddr, &l.metrics}, {"--debug-addr", c.DebugAddr, &l.debug},
	} {
		if one.address == "" || *one.to != nil {
			continue
		}
		bound, err := listen.Open(one.flag, one.address)
		if err != nil {
			l.close()
			return listeners{}, err
		}
		*one.to = bound
	}
	return l, nil
}

func (l listeners) close() {
	for _, one := range []net.Listener{l.http, l.https, l.metrics, l.debug} {
		if one != nil {
			one.Close()
		}
	}
}

// Addresses are where the agent listens.
type Addresses struct{ HTTP, HTTPS, Metrics string }

// Addresses returns where the agent listens; empty for what it does not.
func (a *Agent) Addresses() Addresses {
	return Addresses{
		HTTP: addressOf(a.listeners.http), HTTPS: addressOf(a.listeners.https), Metrics: addressOf(a.listeners.metrics),
	}
}

func addressOf(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

func (a *Agent) httpAddress() string {
	at := a.Addresses()
	return strings.Join(slices.DeleteFunc([]string{at.HTTP, at.HTTPS}, func(s string) bool { return s == "" }), ",")
}

// describe writes the agent's state as text.
func (a *Agent) describe(to io.Writer) {
	_, text := a.readiness()
	stats := a.store.Stats()
	fmt.Fprintf(to, "edge: %s in %s, %s\n%scache: %d objects, %d of %d bytes\ngoroutines: %d\n",
		a.id, a.cfg.Region, a.cfg.Version, text, stats.Objects, stats.Bytes, a.cfg.CacheSize, runtime.NumGoroutine())
}

// State returns the agent's state: a word, and a line for people.
func (a *Agent) State() systemd.State {
	ready, _ := a.readiness()
	if !ready {
		return systemd.State{Text: "waits for the first topology of " + strings.Join(a.cfg.ControlPlane, ", ")}
	}
	text := fmt.Sprintf("serves revision %d", a.table.Root().Revision())
	if a.control.Status().Server == "" {
		text += ", without a control plane"
	}
	return systemd.State{Ready: true, Text: text}
}

// diskPatience is how long Run waits for disks once the last request is answered. The kernel gives
// operations of a disk no deadline, so one that hangs would keep the process for ever.
const diskPatience = 5 * time.Second

// Run serves until ctx ends, then lets requests finish for at most 30 s. It stops early only if a
// part cannot go on.
func (a *Agent) Run(ctx context.Context) error {
	at := a.Addresses()
	if a.identity != nil {
		if id, region := a.identity.ID(); id != "" {
			a.id, a.cfg.Region = id, region
		}
	}
	a.cfg.Logger.Info("edge agent is up", "id", a.id, "region", a.cfg.Region, "http", at.HTTP, "https", at.HTTPS,
		"metrics", at.Metrics,
		"control_plane", strings.Join(a.cfg.ControlPlane, ","), "state_dir", a.cfg.StateDir, "cache_dir",
		a.cfg.CacheDir, "revision", a.table.Root().Revision())
	answered, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		err := a.run(ctx, answered)
		a.close()
		ended <- err
	}()
	// The servers end by themselves, unless the disk of the state folder hangs.
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(edgehttp.DrainTime+diskPatience, cancel) })()
	select {
	case err := <-ended:
		return err
	case <-answered:
	case <-late.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(diskPatience):
		a.cfg.Logger.Error("a disk does not answer, the edge agent ends without it", "state_dir", a.cfg.StateDir,
			"cache_dir", a.cfg.CacheDir)
		return nil
	}
}

// run serves until ctx ends, and closes answered when no request is left.
func (a *Agent) run(ctx context.Context, answered chan<- struct{}) error {
	// The parts that requests use run until the last request is answered.
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()
	var back errgroup.Group
	back.Go(func() error { return a.store.Run(behind) })
	back.Go(func() error { return a.purges.Run(behind, a.store.Sweep) })
	back.Go(func() error { return a.watchStops(behind) })
	back.Go(func() error { return a.images.Run(behind) })
	back.Go(func() error { return a.certs.Run(behind) })
	back.Go(func() error { return a.serveHealth(behind) })
	if a.listeners.debug != nil {
		a.cfg.Logger.Info("profiles are served", "debug", a.listeners.debug.Addr().String())
		back.Go(func() error { return debughttp.Serve(behind, a.listeners.debug, a.describe) })
	}

	front, frontCtx := errgroup.WithContext(ctx)
	front.Go(func() error { return a.server.Run(frontCtx) })
	front.Go(func() error { return a.follow(frontCtx) })
	err := front.Wait()
	close(answered)
	stopBehind()
	err = errors.Join(err, back.Wait())
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// close closes what build has opened, in reverse order.
func (a *Agent) close() {
	a.listeners.close()
	if a.cache != nil {
		a.cache.Close()
	}
	if a.client != nil {
		a.client.Close()
	}
	if a.store != nil {
		a.store.Close()
	}
	if a.accessLog != nil {
		a.accessLog.close()
	}
	if a.traces != nil {
		a.traces.Close()
	}
}

// openTraces returns what makes spans, nil without --otlp-endpoint.
func (a *Agent) openTraces() (trace.Tracer, error) {
	if a.cfg.OTLPEndpoint == "" {
		return nil, nil
	}
	id, region := a.id, a.cfg.Region
	if a.identity != nil {
		if joined, in := a.identity.ID(); joined != "" {
			id, region = joined, in
		}
	}
	var err error
	a.traces, err = tracing.Open(context.Background(), tracing.Config{
		Endpoint: a.cfg.OTLPEndpoint, Version: a.cfg.Version, ID: id, Region: region, Logger: a.cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("--otlp-endpoint: %w", err)
	}
	return a.traces.Tracer(), nil
}

// ReopenAccessLog opens the file of the access log by its path again, after it was renamed. Until
// then lines go to the renamed file, so that none is lost; after an error they still do.
func (a *Agent) ReopenAccessLog() error {
	if a.accessLog == nil {
		return nil
	}
	return a.accessLog.reopen()
}

// healthTimeout bounds requests to the metrics listener.
const healthTimeout = 10 * time.Second

func (a *Agent) hasEndpoint(account, id string) bool {
	of := a.table.Root().Account(account)
	return of != nil && of.Endpoint(id) != nil
}

func (a *Agent) hasOrigin(account, id string) bool {
	of := a.table.Root().Account(account)
	return of != nil && (id == topology.MediaStep || of.Origin(id) != nil)
}
