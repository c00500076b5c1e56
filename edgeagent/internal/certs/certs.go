// Package certs is an edge's certificates for custom domains: it fetches those that the topology
// names from the control plane, keeps them sealed on disk, and makes them ready for handshakes.
//
// Which certificate is for which domain is the routing table's business.
//
// What always holds: no handshake makes the edge ask for anything but a certificate that the
// topology names; a certificate that was fetched once is served again after any restart, without a
// control plane; a record that is damaged is fetched anew, and never served.
package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// fetchAtOnce and fetchRate are how many certificates are fetched in one call, and each second,
	// while nobody waits for them.
	fetchAtOnce, fetchRate = 64, 500
	// fetchTimeout bounds such a call.
	fetchTimeout = 10 * time.Second
	// handshakeWait is how long a handshake waits for a certificate that is not on disk. In the
	// first loadWait after the start it waits for the file to be read, and looks each loadLook
	// whether the certificate was read. A disk that takes longer than that is not waited for.
	handshakeWait = 2 * time.Second
	loadWait      = 4 * time.Second
	loadLook      = 10 * time.Millisecond
	// maxWaits bounds the calls that handshakes wait for.
	maxWaits = 64
	// again is the time after which a certificate that the control plane did not have is asked for
	// again. refusedFor is how long handshakes do not ask for one that could not be fetched.
	again      = 30 * time.Second
	refusedFor = time.Second
	// maxPause bounds the time between two calls that fail.
	maxPause = 30 * time.Second
	// soonestEvery is the least time between two passes over all certificates that look for the one
	// that ends first, where there are more than soonestFew.
	soonestEvery, soonestFew = time.Minute, 10_000
	// compactAgain is the time after which a compaction that failed is tried again: each takes the
	// room of a whole file, which others may need.
	compactAgain = 5 * time.Minute
)

// Defaults of a [Config].
const (
	DefaultSize  = 2 << 30
	DefaultReady = 20_000
)

// Config is what Certificates need. Fields without a default are required.
type Config struct {
	// Dir is the folder that keeps certificates. It is made if it does not exist.
	Dir string
	// Size bounds what it keeps, in bytes. Default: DefaultSize.
	Size int64
	// Ready is how many certificates are kept ready in memory. Default: DefaultReady.
	Ready int
	// Root is the topology of this moment.
	Root func() *route.Root
	// Fetch asks a control plane for at most 64 certificates. Those that it does not have are left
	// out.
	Fetch func(context.Context, []topology.CertificateID) ([]*topologyv1.SealedCertificate, error)

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Certificates are those of an edge.
type Certificates struct {
	cfg     Config
	file    *file
	ready   *lru.Cache[topology.CertificateID, *tls.Certificate]
	refused *lru.Cache[topology.CertificateID, time.Time] // until when
	metrics *metrics
	errors  atomic.Int64 // of fetches

	fetches singleflight.Group
	waits   chan struct{}
	loaded  chan struct{} // closed when the file was read, or nobody is to wait for that any more
	kick    chan struct{}
	// connected says that a control plane was reached, so that what could not be fetched is asked
	// for at once.
	connected atomic.Bool
	fetched   chan []*topologyv1.SealedCertificate // by handshakes, to be written
	// compacts is when the file may be compacted. It is Run's own.
	compacts time.Time

	mu sync.Mutex
	// changed are certificates that came since the last look; everything says to look at all.
	changed    []*topology.Certificate
	everything bool
	looked     bool // at all of them
	// missing are the certificates that are not on disk.
	missing map[topology.CertificateID]*want
	soonest soonest

	loadWait time.Duration // the constant, but for tests
}

// want is a certificate to fetch.
type want struct {
	certificate *topology.Certificate
	next        time.Time // when to ask for it
}

// soonest is when the first certificate ends.
type soonest struct {
	at    int64 // Unix time, 0 for none
	asOf  time.Time
	epoch string
	to    int64 // the revision it was found at
}

// New returns the certificates of a folder. Run reads the folder.
func New(cfg Config) (*Certificates, error) {
	cfg.Size = cmp.Or(cfg.Size, DefaultSize)
	cfg.Ready = cmp.Or(cfg.Ready, DefaultReady)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Certificates{
		cfg: cfg, file: newFile(cfg.Dir, cfg.Size), waits: make(chan struct{}, maxWaits), loaded: make(chan struct{}),
		kick: make(chan struct{}, 1), fetched: make(chan []*topologyv1.SealedCertificate, maxWaits),
		missing: make(map[topology.CertificateID]*want), everything: true, loadWait: loadWait,
	}
	var err error
	if c.ready, err = lru.New[topology.CertificateID, *tls.Certificate](cfg.Ready); err != nil {
		return nil, err
	}
	if c.refused, err = lru.New[topology.CertificateID, time.Time](1024); err != nil {
		return nil, err
	}
	c.metrics = newMetrics(c)
	return c, cfg.Registerer.Register(c.metrics)
}

// Changed records the certificates that the topology names anew; full says that it may name others
// altogether. keys says that there are other keys to open them with. It does not wait.
func (c *Certificates) Changed(_ *route.Root, changed []*topology.Certificate, full, keys bool) {
	c.mu.Lock()
	if full {
		c.changed, c.everything = nil, true
	} else {
		c.changed = append(c.changed, changed...)
	}
	c.mu.Unlock()
	if keys {
		c.refused.Purge()
	}
	c.wake()
}

// Connected makes Run ask for what is missing soon, because a control plane can be reached.
func (c *Certificates) Connected() {
	c.connected.Store(true)
	c.wake()
}

func (c *Certificates) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Holds reports whether the edge has a certificate and could serve it at once.
func (c *Certificates) Holds(want *topology.Certificate) bool {
	return c.ready.Contains(want.ID) || c.file.has(want.ID)
}

// Get returns a certificate that is ready for handshakes. If it has to, it reads or fetches it
// first.
func (c *Certificates) Get(want *topology.Certificate) (*tls.Certificate, error) {
	if ready, ok := c.ready.Get(want.ID); ok {
		c.metrics.lookups[lookupReady].Inc()
		return ready, nil
	}
	ready, result, err := c.find(want)
	c.metrics.lookups[result].Inc()
	return ready, err
}

// find looks for a certificate on disk, and then at the control plane.
func (c *Certificates) find(want *topology.Certificate) (*tls.Certificate, lookup, error) {
	ready, err := c.fromDisk(want)
	if errors.Is(err, errAbsent) {
		c.waitLoaded(want)
		ready, err = c.fromDisk(want)
	}
	switch {
	case err == nil:
		return ready, lookupDisk, nil
	case errors.Is(err, errNoChain):
		return nil, lookupFailed, err
	}
	if until, ok := c.refused.Get(want.ID); ok && c.cfg.Now().Before(until) {
		return nil, lookupFailed, fmt.Errorf("certificate %s was asked for in vain a moment ago", want.ID)
	}
	deadline := time.NewTimer(handshakeWait)
	defer deadline.Stop()
	fetch := c.fetches.DoChan(want.ID.String(), func() (any, error) {
		if ready, ok := c.ready.Get(want.ID); ok {
			return ready, nil // it came after this handshake had looked
		}
		return c.fetchOne(want)
	})
	select {
	case done := <-fetch:
		if done.Err != nil {
			return nil, lookupFailed, done.Err
		}
		return done.Val.(*tls.Certificate), lookupFetched, nil
	case <-deadline.C:
		return nil, lookupFailed, fmt.Errorf("certificate %s did not come in %s", want.ID, handshakeWait)
	}
}

// waitLoaded waits until the file has a certificate, is known not to have it, or takes too long.
func (c *Certificates) waitLoaded(want *topology.Certificate) {
	look := time.NewTicker(loadLook)
	defer look.Stop()
	for !c.file.has(want.ID) {
		select {
		case <-c.loaded:
			return
		case <-look.C:
		}
	}
}

// errNoChain says that a certificate has come before its chain.
var errNoChain = errors.New("the chain has not come yet")

// mayOpenLater reports whether the stream may still bring what is missing to open a certificate.
// One that is sealed with keys that the edge no longer has, as after a change of its pool, can be
// fetched anew.
func mayOpenLater(err error) bool {
	return errors.Is(err, seal.ErrUnknownKey) || errors.Is(err, errNoChain)
}

func (c *Certificates) fromDisk(want *topology.Certificate) (*tls.Certificate, error) {
	stored, err := c.file.read(want.ID)
	if err == nil {
		var ready *tls.Certificate
		if ready, err = c.open(want, stored); err == nil {
			c.ready.Add(want.ID, ready)
			return ready, nil
		}
		if !mayOpenLater(err) {
			c.file.drop(want.ID)
		}
	}
	if !errors.Is(err, errAbsent) && !mayOpenLater(err) {
		c.cfg.Logger.Error("a certificate on disk cannot be used; it is fetched anew", "certificate", want.ID, "err",
			err)
		c.metrics.damaged.Inc()
		c.Changed(nil, []*topology.Certificate{want}, false, false)
	}
	return nil, err
}

// open makes a sealed certificate ready. Its Leaf stays nil, because that takes more memory than
// all the rest and a handshake does not need it.
func (c *Certificates) open(
	want *topology.Certificate, stored *topologyv1.SealedCertificate,
) (*tls.Certificate, error) {
	root := c.cfg.Root()
	pair, err := topology.OpenKeyPair(root.Ring(), want.ID, stored)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(pair.GetKey())
	if err != nil || len(pair.GetLeaf()) == 0 {
		return nil, fmt.Errorf("certificate %s holds no key", want.ID) // the text of err might quote the key
	}
	chain := pair.GetChain()
	if want.Chain != (topology.ChainID{}) {
		if chain = root.Chain(want.Chain); chain == nil {
			return nil, fmt.Errorf("certificate %s: %w", want.ID, errNoChain)
		}
	}
	shown := make([][]byte, 0, 1+len(chain))
	return &tls.Certificate{Certificate: append(append(shown, pair.GetLeaf()), chain...), PrivateKey: key}, nil
}

// fetchOne fetches a certificate that a handshake waits for.
func (c *Certificates) fetchOne(want *topology.Certificate) (*tls.Certificate, error) {
	select {
	case c.waits <- struct{}{}:
		defer func() { <-c.waits }()
	default:
		return nil, errors.New("too many handshakes wait for certificates")
	}
	ctx, cancel := context.WithTimeout(context.Background(), handshakeWait)
	defer cancel()
	found, err := c.cfg.Fetch(ctx, []topology.CertificateID{want.ID})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("the control plane has no certificate %s", want.ID)
	}
	var ready *tls.Certificate
	if err == nil {
		ready, err = c.open(want, found[0])
	}
	if err != nil {
		c.failed()
		c.refused.Add(want.ID, c.cfg.Now().Add(refusedFor))
		return nil, err
	}
	c.ready.Add(want.ID, ready)
	select {
	case c.fetched <- found:
	default: // the disk is slow; the certificate stays missing and comes again
	}
	return ready, nil
}

func (c *Certificates) failed() {
	c.errors.Add(1)
	c.metrics.failures.Inc()
}

// Run reads the file, and keeps in it what the topology names, until ctx ends.
func (c *Certificates) Run(ctx context.Context) error {
	defer c.file.close()
	waited := sync.OnceFunc(func() { close(c.loaded) })
	enough := time.AfterFunc(c.loadWait, waited)
	damaged, err := c.file.load()
	enough.Stop()
	waited()
	switch {
	case err != nil:
		c.cfg.Logger.Error("certificates are not kept on disk: after a restart a control plane has to send them again", "err", err)
	case damaged > 0:
		c.metrics.damaged.Add(float64(damaged))
		c.cfg.Logger.Error("certificates on disk are damaged and fetched anew", "records", damaged)
	}
	f := fetching{limit: rate.NewLimiter(fetchRate, fetchAtOnce)}
	for {
		timer := time.NewTimer(c.round(ctx, &f))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case found := <-c.fetched:
			c.keepFetched(found)
		case <-c.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// fetching is the state of fetching in the background.
type fetching struct {
	limit  *rate.Limiter
	pause  time.Duration // after the last failure
	resume time.Time
}

// round fetches what is due, and returns when to do so again.
func (c *Certificates) round(ctx context.Context, f *fetching) time.Duration {
	due := c.due()
	c.tidy()
	if c.connected.Swap(false) {
		f.pause, f.resume = 0, time.Time{}
	}
	if wait := f.resume.Sub(c.cfg.Now()); wait > 0 {
		return wait
	}
	for len(due) > 0 && ctx.Err() == nil {
		some := due[:min(len(due), fetchAtOnce)]
		if f.limit.WaitN(ctx, len(some)) != nil {
			return 0
		}
		if err := c.fetchSome(ctx, some); err != nil {
			f.pause = min(max(2*f.pause, time.Second), maxPause)
			f.resume = c.cfg.Now().Add(f.pause)
			if ctx.Err() == nil {
				c.cfg.Logger.Warn("certificates cannot be fetched", "missing", len(due), "err", err, "retry_in",
					f.pause)
			}
			return f.pause
		}
		f.pause, due = 0, due[len(some):]
		for len(c.fetched) > 0 {
			c.keepFetched(<-c.fetched)
		}
	}
	return again
}

// keepFetched writes what a handshake has fetched. What cannot be written counts as missing, and is
// fetched again.
func (c *Certificates) keepFetched(found []*topologyv1.SealedCertificate) {
	if err := c.keep(found); err != nil {
		c.cfg.Logger.Warn("a certificate is not kept on disk", "err", err)
	}
}

// due takes what has changed into account and returns the certificates to fetch now.
func (c *Certificates) due() (due []*topology.Certificate) {
	root, now := c.cfg.Root(), c.cfg.Now()
	c.mu.Lock()
	changed, everything := c.changed, c.everything
	c.changed, c.everything = nil, false
	c.mu.Unlock()
	var absent []*topology.Certificate
	look := func(cert *topology.Certificate) {
		if !c.file.has(cert.ID) {
			absent = append(absent, cert)
		}
	}
	for _, cert := range changed {
		look(cert)
	}
	if everything {
		for cert := range root.Certificates() {
			look(cert)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looked = true
	for _, cert := range absent {
		if c.missing[cert.ID] == nil {
			c.missing[cert.ID] = &want{certificate: cert}
		}
	}
	for id, w := range c.missing {
		switch {
		case !root.Current(w.certificate) || c.file.has(id):
			delete(c.missing, id)
		case !now.Before(w.next):
			due = append(due, w.certificate)
		}
	}
	return due
}

// fetchSome fetches certificates and writes them.
func (c *Certificates) fetchSome(ctx context.Context, some []*topology.Certificate) error {
	ids := make([]topology.CertificateID, len(some))
	for i, cert := range some {
		ids[i] = cert.ID
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	found, err := c.cfg.Fetch(ctx, ids)
	if err != nil {
		c.failed()
		return err
	}
	err = c.keep(found)
	c.mu.Lock()
	defer c.mu.Unlock()
	later := c.cfg.Now().Add(again)
	for _, id := range ids {
		if w := c.missing[id]; w != nil {
			w.next = later
		}
	}
	return err
}

// keep writes certificates to the file.
func (c *Certificates) keep(found []*topologyv1.SealedCertificate) error {
	if len(found) == 0 {
		return nil
	}
	err := c.file.add(found)
	if errors.Is(err, errFull) {
		// A full file that is in use would otherwise be written anew with each certificate to come.
		used := c.used()
		if _, size := c.file.waste(); c.mayCompact() && c.file.reclaimable(used) >= size/leastReclaimed {
			if err = c.compact(used); err == nil {
				err = c.file.add(found)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("keep certificates: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, stored := range found {
		delete(c.missing, topology.CertificateID(stored.GetId()))
	}
	return nil
}

// tidy compacts the file when most of it is waste, or when it is gone.
func (c *Certificates) tidy() {
	waste, size := c.file.waste()
	if (waste < wasteful || waste < size/2) && !c.file.gone() || !c.mayCompact() {
		return
	}
	if err := c.compact(c.used()); err != nil {
		c.cfg.Logger.Error("the file of certificates cannot be written anew", "err", err, "retry_in", compactAgain)
	}
}

// mayCompact reports whether no compaction has failed of late.
func (c *Certificates) mayCompact() bool { return !c.cfg.Now().Before(c.compacts) }

// compact writes the file anew, with only the certificates that are used.
func (c *Certificates) compact(used func(topology.CertificateID) bool) error {
	err := c.file.compact(used)
	if err != nil {
		c.compacts = c.cfg.Now().Add(compactAgain)
	}
	return err
}

// used returns which certificates the topology names.
func (c *Certificates) used() func(topology.CertificateID) bool {
	used := make(map[topology.CertificateID]bool)
	for cert := range c.cfg.Root().Certificates() {
		used[cert.ID] = true
	}
	return func(id topology.CertificateID) bool { return used[id] }
}

// Report returns what the control plane shows of the edge's certificates.
func (c *Certificates) Report() *topologyv1.Edge_Certificates {
	root := c.cfg.Root()
	c.mu.Lock()
	missing := 0
	for _, w := range c.missing {
		if root.Current(w.certificate) {
			missing++
		}
	}
	if !c.looked {
		missing = max(0, root.CertificateCount()-c.file.count())
	}
	c.mu.Unlock()
	report := &topologyv1.Edge_Certificates{
		Ready: int64(c.ready.Len()), OnDisk: int64(max(0, root.CertificateCount()-missing)), Missing: int64(missing),
		FetchErrors: c.errors.Load(),
	}
	if at := c.soonestEnd(root); at != 0 {
		report.SoonestExpiry = timestamppb.New(time.Unix(at, 0))
	}
	return report
}

// soonestEnd is when the first certificate ends, as Unix time; 0 for none.
func (c *Certificates) soonestEnd(root *route.Root) int64 {
	now := c.cfg.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	same := c.soonest.epoch == root.Epoch() && c.soonest.to == root.Revision()
	recent := root.CertificateCount() > soonestFew && now.Sub(c.soonest.asOf) < soonestEvery
	if !c.soonest.asOf.IsZero() && (same || recent) {
		return c.soonest.at
	}
	found := int64(0)
	for cert := range root.Certificates() {
		if found == 0 || cert.NotAfter < found {
			found = cert.NotAfter
		}
	}
	c.soonest = soonest{found, now, root.Epoch(), root.Revision()}
	return found
}
