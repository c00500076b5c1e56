package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/edgeagent/internal/disktest"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route/routetest"
	"github.com/edgewalk/edgewalk/internal/certtest"
	"github.com/edgewalk/edgewalk/internal/logtest"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is all that an edge learns about certificates from: a topology, keys, and a control plane
// that may be away.
type world struct {
	tb        testing.TB
	table     *route.Table
	authority *certtest.Authority
	keys      *seal.Keyset
	ring      *seal.Ring
	revision  int64

	mu     sync.Mutex
	stored map[topology.CertificateID]*topologyv1.SealedCertificate
	away   bool
	hold   chan struct{} // when not nil, calls wait for it to be closed
	calls  [][]topology.CertificateID
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{
		tb: tb, authority: certtest.New(tb),
		stored: make(map[topology.CertificateID]*topologyv1.SealedCertificate),
	}
	w.keys, w.ring = newRing(tb)
	w.table = route.New(route.Hooks{})
	w.apply(route.Step{Full: true, Epoch: "e", SharedHost: "shared.test", Ring: w.ring})
	return w
}

func newRing(tb testing.TB) (*seal.Keyset, *seal.Ring) {
	tb.Helper()
	keys, err := seal.NewKeyset()
	if err != nil {
		tb.Fatal(err)
	}
	return keys, seal.NewRing("topology", map[string]*seal.Keyset{"default": keys})
}

func (w *world) apply(s route.Step) {
	w.tb.Helper()
	w.revision++
	s.Revision = w.revision
	if result, err := w.table.Apply(s); err != nil || len(result.Rejected) > 0 {
		w.tb.Fatalf("%v, %v", result.Rejected, err)
	}
}

// issue has a certificate made for a domain of account acme, and tells the edge.
func (w *world) issue(name string) *topology.Certificate {
	w.tb.Helper()
	pair := w.authority.Issue([]string{name})
	chain := &topologyv1.Chain{Certificates: [][]byte{w.authority.Cert.Raw}}
	chainID := topology.ChainOf(chain)
	id := topology.CertificateID(fmt.Appendf(nil, "%-16.16s", fmt.Sprint(w.revision, name)))
	sealed, err := topology.SealKeyPair(w.ring, "default", "acme", id,
		&topologyv1.KeyPair{Leaf: pair.Leaf.Raw, Key: pair.PKCS8(w.tb)})
	if err != nil {
		w.tb.Fatal(err)
	}
	sealed.Id, sealed.Account = id[:], ""
	w.mu.Lock()
	w.stored[id] = sealed
	w.mu.Unlock()
	w.apply(route.Step{Records: routetest.Records(
		w.record(topology.Key{Kind: topology.KindCustomDomains, Account: "acme", ID: name}, &topologyv1.CustomDomain{
			Domain: name, State: topologyv1.CustomDomain_ACTIVE,
		}),
		w.record(topology.Key{Kind: topology.KindChains, ID: chainID.String()}, chain),
		w.record(topology.Key{Kind: topology.KindCertificates, Account: "acme", ID: name}, &topologyv1.Certificate{
			Id: id[:], Chain: chainID[:], NotAfter: pair.Leaf.NotAfter.Unix(),
		}),
	)})
	return w.of(name)
}

func (w *world) of(name string) *topology.Certificate {
	root := w.table.Root()
	return root.Certificate(root.DomainOf(name), time.Now())
}

func (w *world) record(key topology.Key, m proto.Message) topology.Record {
	w.tb.Helper()
	value, err := topology.Encode(m)
	if err != nil {
		w.tb.Fatal(err)
	}
	return topology.Record{Key: key, CreateRevision: 1, ModRevision: w.revision + 1, Value: value}
}

var errAway = errors.New("nobody is there")

func (w *world) fetch(
	ctx context.Context, ids []topology.CertificateID,
) (found []*topologyv1.SealedCertificate, err error) {
	w.mu.Lock()
	w.calls = append(w.calls, ids)
	hold := w.hold
	w.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		return nil, errAway
	}
	for _, id := range ids {
		if stored := w.stored[id]; stored != nil {
			found = append(found, stored)
		}
	}
	return found, nil
}

func (w *world) setAway(away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = away
}

func (w *world) asked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.calls)
}

// edge is certificates that run until they are stopped.
type edge struct {
	*Certificates
	log  *logtest.Buffer
	stop func()
}

func (w *world) start(dir string, change func(*Config)) *edge {
	w.tb.Helper()
	e := &edge{log: new(logtest.Buffer)}
	cfg := Config{
		Dir: dir, Root: w.table.Root, Fetch: w.fetch, Logger: slog.New(slog.NewTextHandler(e.log, nil)),
		Registerer: prometheus.NewRegistry(),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if e.Certificates, err = New(cfg); err != nil {
		w.tb.Fatal(err)
	}
	e.run(w.tb)
	return e
}

// run runs the certificates until they are stopped, by the end of the test at the latest.
func (e *edge) run(tb testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(e.stop)
}

// until waits for a condition.
var until = await.True

// shown checks that a certificate is one that clients take for a name.
func (w *world) shown(e *edge, name string) {
	w.tb.Helper()
	ready, err := e.Get(w.of(name))
	if err != nil {
		w.tb.Errorf("%s: %v", name, err)
		return
	}
	w.good(ready, name)
}

// shownAll checks that for n0.acme.test and so on, n names.
func (w *world) shownAll(e *edge, n int) {
	w.tb.Helper()
	for i := range n {
		w.shown(e, fmt.Sprintf("n%d.acme.test", i))
	}
}

func (w *world) good(ready *tls.Certificate, name string) {
	w.tb.Helper()
	leaf, err := x509.ParseCertificate(ready.Certificate[0])
	if err != nil {
		w.tb.Fatal(err)
	}
	if err := leaf.VerifyHostname(name); err != nil {
		w.tb.Error(err)
	}
	signer := ready.PrivateKey.(crypto.Signer)
	if !signer.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(leaf.PublicKey) {
		w.tb.Errorf("%s: the key is another", name)
	}
	if ready.Leaf != nil || len(ready.Certificate) != 2 {
		w.tb.Errorf("%s: leaf %v, %d certificates", name, ready.Leaf != nil, len(ready.Certificate))
	}
}

// What the topology names is fetched without anybody asking for it, and then served without a
// control plane, after a restart too.
func TestWhatWasFetchedIsServedForEver(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	var names []string
	for i := range 150 {
		names = append(names, fmt.Sprintf("n%d.acme.test", i))
		w.issue(names[i])
	}
	first := w.start(dir, nil)
	until(t, "all are on disk",
		func() bool { return first.Report().GetOnDisk() == 150 && first.Report().GetMissing() == 0 })
	if n := w.asked(); n != 3 {
		t.Errorf("%d calls for 150 certificates, want 3", n)
	}
	if ready := first.Report().GetReady(); ready != 0 {
		t.Errorf("%d are ready though nobody has asked", ready)
	}
	first.stop()
	w.setAway(true)
	second := w.start(dir, nil)
	for _, name := range names {
		w.shown(second, name)
	}
	if r := second.Report(); r.GetReady() != 150 || r.GetFetchErrors() != 0 || w.asked() != 3 {
		t.Errorf("after the restart %v, %d calls", r, w.asked())
	}
}

// A handshake for a certificate that is not there yet fetches it, once for all that wait, and it is
// on disk then.
func TestAHandshakeFetches(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	e := w.start(dir, nil)
	until(t, "the start", func() bool { return len(e.loaded) == 0 && isClosed(e.loaded) })
	hold := make(chan struct{})
	w.mu.Lock()
	w.hold = hold
	w.mu.Unlock()
	want := w.issue("a.acme.test") // Changed is not called: only the handshake asks
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { w.shown(e, "a.acme.test") })
	}
	until(t, "a call", func() bool { return w.asked() == 1 })
	close(hold)
	wg.Wait()
	if w.asked() != 1 {
		t.Errorf("%d calls for 20 handshakes", w.asked())
	}
	until(t, "it is on disk", func() bool { return e.file.has(want.ID) })
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Without a control plane a handshake fails soon, and does not ask again at once. When it is back,
// the next one succeeds.
func TestAHandshakeWithoutAControlPlane(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setAway(true)
	now := time.Now()
	var mu sync.Mutex
	e := w.start(t.TempDir(), func(c *Config) {
		c.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}
	})
	want := w.issue("a.acme.test")
	const handshakes = 1000
	for range handshakes {
		if _, err := e.Get(want); err == nil {
			t.Fatal("a certificate from nowhere")
		}
	}
	// One is a handshake's, the others are made in the background, with growing pauses.
	if n := w.asked(); n == 0 || n > handshakes/50 {
		t.Errorf("%d calls for %d handshakes within a second", n, handshakes)
	}
	mu.Lock()
	now = now.Add(2 * refusedFor)
	mu.Unlock()
	w.setAway(false)
	w.shown(e, "a.acme.test")
	if r := e.Report(); r.GetFetchErrors() == 0 {
		t.Errorf("report %v", r)
	}
}

// When fetching fails it is tried again, at once when a control plane says that it is there.
func TestFetchingGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setAway(true)
	e := w.start(t.TempDir(), nil)
	e.Changed(nil, []*topology.Certificate{w.issue("a.acme.test")}, false, false)
	until(t, "a failure", func() bool { return e.Report().GetFetchErrors() > 0 && e.Report().GetMissing() == 1 })
	w.setAway(false)
	e.Connected()
	until(t, "it is there", func() bool { return e.Report().GetMissing() == 0 })
}

// A renewal takes the place of the one before, of which nothing is asked any more; a certificate
// that the control plane does not have is asked for again, seldom.
func TestCertificatesChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.start(t.TempDir(), nil)
	first := w.issue("a.acme.test")
	e.Changed(nil, []*topology.Certificate{first}, false, false)
	until(t, "the first", func() bool { return e.file.has(first.ID) })
	w.shown(e, "a.acme.test")
	second := w.issue("a.acme.test")
	w.mu.Lock()
	kept := w.stored[second.ID]
	delete(w.stored, second.ID)
	w.mu.Unlock()
	e.Changed(nil, []*topology.Certificate{second}, false, false)
	until(t, "it is missing", func() bool { return e.Report().GetMissing() == 1 })
	if _, err := e.Get(second); err == nil {
		t.Error("it is shown though nobody has it")
	}
	w.mu.Lock()
	w.stored[second.ID] = kept
	w.mu.Unlock()
	e.refused.Purge()
	w.shown(e, "a.acme.test")
	until(t, "none is missing", func() bool { return e.Report().GetMissing() == 0 })
}

// The number of certificates that are ready is bounded; the others come from disk.
func TestFewAreReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 40 {
		w.issue(fmt.Sprintf("n%d.acme.test", i))
	}
	e := w.start(t.TempDir(), func(c *Config) { c.Ready = 10 })
	until(t, "all are on disk", func() bool { return e.file.count() == 40 })
	w.setAway(true)
	for range 3 {
		for i := range 40 {
			w.shown(e, fmt.Sprintf("n%d.acme.test", i))
		}
	}
	if r := e.Report(); r.GetReady() != 10 {
		t.Errorf("%d are ready", r.GetReady())
	}
}

// What is sealed with keys that the edge does not have is fetched anew, and is not lost meanwhile.
func TestKeysChange(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	want := w.issue("a.acme.test")
	first := w.start(dir, nil)
	until(t, "it is on disk", func() bool { return first.file.has(want.ID) })
	first.stop()
	old := w.ring
	_, other := newRing(t)
	w.apply(route.Step{Ring: other})
	w.setAway(true)
	e := w.start(dir, nil)
	if _, err := e.Get(want); err == nil {
		t.Error("it opens without its key")
	}
	w.apply(route.Step{Ring: old})
	w.shown(e, "a.acme.test")
}

// Whatever happens to the file, what is damaged is fetched anew and the rest is served.
func TestDamagedFile(t *testing.T) {
	t.Parallel()
	const n = 20
	for name, damage := range map[string]struct {
		do   func([]byte) []byte
		lost int // at most
	}{
		"a body": {func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, 1},
		"a head": {
			func(b []byte) []byte { i := bytes.LastIndex(b, []byte("ECW1")); b[i+5] ^= 0xff; return b }, 1,
		},
		"the end is cut off":    {func(b []byte) []byte { return b[:len(b)-70] }, 1},
		"zeros at the end":      {func(b []byte) []byte { return append(b[:len(b)-500], make([]byte, 5000)...) }, 1},
		"a sector in the midst": {func(b []byte) []byte { clear(b[4096:8192]); return b }, 8},
		"another format":        {func(b []byte) []byte { copy(b, "another"); return b }, n},
		"nothing":               {func([]byte) []byte { return nil }, n},
		"another's bytes":       {func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) }, n},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, dir := newWorld(t), t.TempDir()
			for i := range n {
				w.issue(fmt.Sprintf("n%d.acme.test", i))
			}
			first := w.start(dir, nil)
			until(t, "all are on disk", func() bool { return first.file.count() == n })
			first.stop()
			path := filepath.Join(dir, fileName)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage.do(b), 0o600); err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			w.calls, w.away = nil, true
			w.mu.Unlock()
			e := w.start(dir, nil)
			lost := 0
			for i := range n {
				want := w.of(fmt.Sprintf("n%d.acme.test", i))
				ready, err := e.Get(want)
				if err != nil {
					lost++
					continue
				}
				w.good(ready, fmt.Sprintf("n%d.acme.test", i))
			}
			if lost > damage.lost || lost == 0 {
				t.Errorf("%d are lost, want 1 to %d", lost, damage.lost)
			}
			w.setAway(false)
			e.refused.Purge()
			e.Connected()
			until(t, "all are back", func() bool { return e.file.count() == n })
			e.stop()
			w.setAway(true)
			w.shownAll(w.start(dir, nil), n)
		})
	}
}

// A process or machine may end at any byte of a write.
func TestTornWrites(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	for i := range 3 {
		w.issue(fmt.Sprintf("n%d.acme.test", i))
	}
	first := w.start(dir, nil)
	until(t, "all are on disk", func() bool { return first.file.count() == 3 })
	first.stop()
	whole, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	for length := range len(whole) {
		if length%7 != 0 && length > align { // all cuts would take long, and differ little
			continue
		}
		torn := newFile(t.TempDir(), 1<<20)
		if err := os.WriteFile(filepath.Join(torn.dir, fileName), whole[:length], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := torn.load(); err != nil {
			t.Fatalf("cut at %d: %v", length, err)
		}
		before := torn.count()
		for _, id := range torn.ids() {
			if _, err := torn.read(id); err != nil {
				t.Fatalf("cut at %d: %v", length, err)
			}
		}
		for _, stored := range w.stored {
			if err := torn.add([]*topologyv1.SealedCertificate{stored}); err != nil {
				t.Fatalf("cut at %d: %v", length, err)
			}
		}
		torn.close()
		again := newFile(torn.dir, 1<<20)
		if damaged, err := again.load(); err != nil || damaged != 0 || again.count() != 3 {
			t.Fatalf("cut at %d, with %d left: then %d, %d damaged, %v", length, before, again.count(), damaged, err)
		}
		again.close()
	}
}

// The file stays within its size: what is not used any more makes room, and when there is none,
// what is not on disk is served all the same.
func TestFullFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const size = 16 << 10
	e := w.start(t.TempDir(), func(c *Config) { c.Size = size })
	renew := func(name string) *topology.Certificate {
		want := w.issue(name)
		e.Changed(nil, []*topology.Certificate{want}, false, false)
		return want
	}
	for i := range 100 { // far more than the file holds, one after the other
		want := renew("a.acme.test")
		until(t, fmt.Sprintf("renewal %d", i), func() bool { return e.file.has(want.ID) })
	}
	for i := range 60 {
		renew(fmt.Sprintf("n%d.acme.test", i))
	}
	until(t, "no more is taken", func() bool { return strings.Contains(e.log.String(), errFull.Error()) })
	for i := range 60 {
		w.shown(e, fmt.Sprintf("n%d.acme.test", i))
	}
	info, err := os.Stat(filepath.Join(e.cfg.Dir, fileName))
	if err != nil || info.Size() > size {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
	// All of it is in use, so it is not written anew for what comes still.
	refused := strings.Count(e.log.String(), errFull.Error())
	renew("late.acme.test")
	until(t, "it is not taken", func() bool { return strings.Count(e.log.String(), errFull.Error()) > refused })
	if now, err := os.Stat(filepath.Join(e.cfg.Dir, fileName)); err != nil || !os.SameFile(info, now) {
		t.Errorf("a full file was written anew, %v", err)
	}
}

// On a full disk, what cannot be kept is served all the same, what was kept stays, and once there
// is room, what comes is kept again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	disk := disktest.Small(t, "size=32k")
	dir := filepath.Join(disk, "certificates")
	e := w.start(dir, nil)
	name := func(i int) string { return fmt.Sprintf("n%d.acme.test", i) }
	issue := func(i int) *topology.Certificate {
		want := w.issue(name(i))
		e.Changed(nil, []*topology.Certificate{want}, false, false)
		return want
	}
	first := issue(0)
	until(t, "the first one is kept", func() bool { return e.file.has(first.ID) })
	const all = 60 // more than the disk has room for
	for i := range all {
		issue(i + 1)
	}
	until(t, "the disk is full", func() bool { return strings.Contains(e.log.String(), "no space left") })
	for i := range all {
		w.shown(e, name(i+1))
	}
	if err := syscall.Mount("none", disk, "tmpfs", syscall.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	last := issue(all + 1)
	until(t, "the last one is kept", func() bool { return e.file.has(last.ID) })
	e.stop()
	w.setAway(true)
	e = w.start(dir, nil)
	w.shown(e, name(0))
	w.shown(e, name(all+1))
	if strings.Contains(e.log.String(), "damaged") {
		t.Error("what was not written whole is found after a restart")
	}
}

// A folder that cannot be used costs certificates after a restart, and no handshake now.
func TestNoDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.issue("a.acme.test")
	e := w.start(dir, nil)
	w.shown(e, "a.acme.test")
	until(t, "the log says so", func() bool { return strings.Contains(e.log.String(), "not kept on disk") })
}

// When the first certificate ends.
func TestSoonestExpiry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.start(t.TempDir(), nil)
	if at := e.Report().GetSoonestExpiry(); at != nil {
		t.Errorf("without a certificate: %v", at)
	}
	a := w.issue("a.acme.test")
	w.apply(route.Step{Records: routetest.Records(w.record(topology.Key{
		Kind: topology.KindCertificates, Account: "acme", ID: "b.acme.test",
	},
		&topologyv1.Certificate{Id: slices.Repeat([]byte{9}, 16), NotAfter: a.NotAfter - 100}))})
	if at := e.Report().GetSoonestExpiry().GetSeconds(); at != a.NotAfter-100 {
		t.Errorf("at %d, want %d", at, a.NotAfter-100)
	}
}

// Nothing of a key lies on disk in the clear.
func TestKeysLieSealed(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	want := w.issue("a.acme.test")
	e := w.start(dir, nil)
	until(t, "it is on disk", func() bool { return e.file.has(want.ID) })
	pair, err := topology.OpenKeyPair(w.ring, want.ID, w.stored[want.ID])
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, pair.GetKey()[30:60]) || bytes.Contains(b, pair.GetLeaf()[30:60]) {
		t.Error("it lies in the clear")
	}
}

// Whatever the file holds, a load finds records that were written, or none.
func FuzzLoad(f *testing.F) {
	record := appendRecord(nil, topology.CertificateID{1}, []byte("body"))
	head := append([]byte(fileMagic), make([]byte, align-len(fileMagic))...)
	f.Add(append(head, record...))
	f.Add(append(append(slices.Clone(head), record[:40]...), record...))
	f.Add(append(slices.Clone(head), make([]byte, 200)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newFile(t.TempDir(), 1<<20)
		if err := os.WriteFile(filepath.Join(d.dir, fileName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.load(); err != nil {
			t.Fatal(err)
		}
		defer d.close()
		for _, id := range d.ids() {
			if record, length, err := d.bytes(id); err != nil || len(record) < headSize+length {
				t.Fatalf("%s: %d bytes of %d, %v", id, len(record), length, err)
			}
		}
		id := topology.CertificateID{7}
		if err := d.add([]*topologyv1.SealedCertificate{{Id: id[:], Sealed: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
		if c, err := d.read(id); err != nil || string(c.GetSealed()) != "x" {
			t.Fatal(c, err)
		}
	})
}
