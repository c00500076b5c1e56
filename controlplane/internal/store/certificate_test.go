package store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const keyBytes = "the bytes of a private key"

// domainUID is the uid of a domain as it is now.
func domainUID(t *testing.T, s *store.Store, account, id string) string {
	t.Helper()
	record, _, err := s.Get(t.Context(), key(topology.KindCustomDomains, account, id))
	if err != nil {
		t.Fatal(err)
	}
	return topology.UID(id, record.CreateRevision)
}

func certificate(domain, uid, leaf string, chain ...string) store.Certificate {
	c := store.Certificate{
		Domain: domain, UID: uid, NotAfter: time.Unix(2e9, 0),
		Pair: &topologyv1.KeyPair{Leaf: []byte(leaf), Key: []byte(keyBytes)},
	}
	for _, one := range chain {
		if c.Chain == nil {
			c.Chain = new(topologyv1.Chain)
		}
		c.Chain.Certificates = append(c.Chain.Certificates, []byte(one))
	}
	return c
}

func putCertificate(t *testing.T, s *store.Store, account string, c store.Certificate) store.Result {
	t.Helper()
	result, err := s.PutCertificate(t.Context(), account, store.RequestID{}, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// certificateAt is what edges are sent of a domain's certificate.
func certificateAt(t *testing.T, s *store.Store, account, domain string) *topology.Certificate {
	t.Helper()
	record, _, err := s.Get(t.Context(), key(topology.KindCertificates, account, domain))
	if err != nil {
		t.Fatal(err)
	}
	c, err := topology.CompileCertificate(record)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// storeWithDomain has account a with img.example.com.
func storeWithDomain(t *testing.T, cfg store.Config) *store.Store {
	t.Helper()
	cfg.Prefix = storetest.Prefix()
	s := storetest.Open(t, cfg)
	mustPut(t, s, "a", accountPut("a", ""))
	if err := changeDomains(t.Context(), s, "a", []string{"img.example.com"}); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCertificatesLieSealedBesideTheirDomain(t *testing.T) {
	t.Parallel()
	s := storeWithDomain(t, store.Config{})
	uid := domainUID(t, s, "a", "img.example.com")
	put := putCertificate(t, s, "a", certificate("img.example.com", uid, "leaf", "intermediate"))
	c := certificateAt(t, s, "a", "img.example.com")
	if c.NotAfter != 2e9 ||
		c.Chain != topology.ChainOf(&topologyv1.Chain{Certificates: [][]byte{[]byte("intermediate")}}) {
		t.Errorf("the record is %+v", c)
	}
	record, _, err := s.Get(t.Context(), key(topology.KindCertificates, "a", "img.example.com"))
	if err != nil || len(record.Value) > 60 || record.ModRevision != put.Revision {
		t.Errorf("the record takes %d bytes at %d, %v", len(record.Value), record.ModRevision, err)
	}
	chain, _, err := s.Get(t.Context(), topology.Key{Kind: topology.KindChains, ID: c.Chain.String()})
	if err != nil {
		t.Fatal(err)
	}
	if certs, err := topology.CompileChain(chain); err != nil || len(certs) != 1 || string(certs[0]) != "intermediate" {
		t.Errorf("the chain is %q, %v", certs, err)
	}
	sealed, err := s.SealedCertificates(t.Context(), []topology.CertificateID{c.ID, {1}, c.ID})
	if err != nil || len(sealed) != 1 || sealed[c.ID].GetAccount() != "a" {
		t.Fatalf("sealed: %v, %v", sealed, err)
	}
	pair, err := topology.OpenKeyPair(s.EdgeKeys(""), c.ID, sealed[c.ID])
	if err != nil || string(pair.GetLeaf()) != "leaf" || string(pair.GetKey()) != keyBytes {
		t.Errorf("opened: %v, %v", pair, err)
	}
	if _, err := topology.OpenKeyPair(s.EdgeKeys(""), topology.CertificateID{1}, sealed[c.ID]); err == nil {
		t.Error("it opens under another id")
	}
	checkNotStored(t, s, keyBytes)
	for pool, others := range map[string]string{"gold": "iron", "iron": "gold"} {
		if _, err := topology.OpenKeyPair(s.EdgeKeys(pool), c.ID, sealed[c.ID]); !errors.Is(err, seal.ErrUnknownKey) {
			t.Errorf("edges of pool %s open what is stored: %v", pool, err)
		}
		of, err := s.SealedFor(t.Context(), pool, c.ID, sealed[c.ID])
		if err != nil {
			t.Fatal(err)
		}
		pair, err := topology.OpenKeyPair(s.EdgeKeys(pool), c.ID, of)
		if err != nil || string(pair.GetKey()) != keyBytes {
			t.Errorf("opened by edges of pool %s: %v, %v", pool, pair, err)
		}
		if _, err := topology.OpenKeyPair(s.EdgeKeys(others), c.ID, of); !errors.Is(err, seal.ErrUnknownKey) {
			t.Errorf("edges of pool %s open it: %v", others, err)
		}
	}
}

// The state, the history and its etags are about what admins write; a renewal is not.
func TestRenewalsAreNoChangeOfTheAccount(t *testing.T) {
	t.Parallel()
	s := storeWithDomain(t, store.Config{})
	before, err := s.AccountState(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	uid := domainUID(t, s, "a", "img.example.com")
	putCertificate(t, s, "a", certificate("img.example.com", uid, "leaf"))
	after, err := s.AccountState(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if after.Changed != before.Changed || after.Guard == before.Guard {
		t.Errorf("changed %d -> %d, guard %d -> %d", before.Changed, after.Changed, before.Guard, after.Guard)
	}
	steps, _, _, err := s.Steps(t.Context(), "a", 0, 10)
	if err != nil || len(steps) != 2 {
		t.Errorf("%d steps, %v: those that made the account and the domain are two", len(steps), err)
	}
}

func TestPutCertificateIsRefused(t *testing.T) {
	t.Parallel()
	s := storeWithDomain(t, store.Config{})
	uid := domainUID(t, s, "a", "img.example.com")
	if err := changeDomains(t.Context(), s, "a", []string{"-img.example.com"}); err != nil {
		t.Fatal(err)
	}
	again := func() {
		if err := changeDomains(t.Context(), s, "a", []string{"img.example.com"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		what, account, domain string
		before                func()
		want                  error
	}{
		{"the domain is gone", "a", "img.example.com", func() {}, store.ErrNotFound},
		{"it is another of the same name", "a", "img.example.com", again, store.ErrNotFound},
		{"it is another account's", "b", "img.example.com", func() { mustPut(t, s, "b", accountPut("b", "")) },
			store.ErrNotFound},
		{"there is no such account", "nobody", "img.example.com", func() {}, store.ErrNotFound},
	} {
		c.before()
		_, err := s.PutCertificate(t.Context(), c.account, store.RequestID{}, certificate(c.domain, uid, "leaf"), nil)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	for _, folder := range []string{"sec/", "cfg/certificates/", "cfg/chains/"} {
		if keys := keysBelow(t, s, folder); len(keys) > 0 {
			t.Errorf("%v are there", keys)
		}
	}
}

// Who has lost the lease writes nothing, whatever he does not know of yet.
func TestFencedWrites(t *testing.T) {
	t.Parallel()
	s := storeWithDomain(t, store.Config{})
	uid := domainUID(t, s, "a", "img.example.com")
	client, err := store.Dial(store.DialConfig{Endpoints: []string{storetest.Endpoint(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	lease, err := client.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	lead := s.Prefix() + "lead/issuer"
	put, err := client.Put(t.Context(), lead, "me", clientv3.WithLease(lease.ID))
	if err != nil {
		t.Fatal(err)
	}
	fence := &store.Fence{Key: lead, Revision: put.Header.Revision}
	write := func() error {
		_, err := s.PutCertificate(t.Context(), "a", store.RequestID{}, certificate("img.example.com", uid, "leaf"),
			fence)
		return err
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	had := certificateAt(t, s, "a", "img.example.com").ID
	if _, err := client.Revoke(t.Context(), lease.ID); err != nil {
		t.Fatal(err)
	}
	if err := write(); !errors.Is(err, store.ErrFenced) {
		t.Errorf("after the lease has ended: %v", err)
	}
	if _, err := client.Put(t.Context(), lead, "somebody else"); err != nil {
		t.Fatal(err)
	}
	if err := write(); !errors.Is(err, store.ErrFenced) {
		t.Errorf("when another leads: %v", err)
	}
	if certificateAt(t, s, "a", "img.example.com").ID != had {
		t.Error("a fenced write was made")
	}
}

// A certificate goes with its domain, and its bytes a week after the last reference.
func TestCertificatesAreForgotten(t *testing.T) {
	t.Parallel()
	now := time.Unix(1.8e9, 0)
	var mu sync.Mutex
	s := storeWithDomain(t, store.Config{Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}})
	sweep := s.SweepCertificates()
	after := func(d time.Duration) {
		mu.Lock()
		now = now.Add(d)
		mu.Unlock()
		if err := sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	count := func(folder string, want int) {
		t.Helper()
		if keys := keysBelow(t, s, folder); len(keys) != want {
			t.Errorf("below %s are %v, want %d", folder, keys, want)
		}
	}
	uid := domainUID(t, s, "a", "img.example.com")
	putCertificate(t, s, "a", certificate("img.example.com", uid, "first", "old chain"))
	putCertificate(t, s, "a", certificate("img.example.com", uid, "second", "new chain"))
	count("cfg/certificates/", 1)
	count("sec/certs/", 2)
	count("cfg/chains/", 2)
	after(0)
	after(6 * 24 * time.Hour)
	count("sec/certs/", 2)
	count("cfg/chains/", 2)
	after(25 * time.Hour)
	after(time.Hour) // by the clock of two passes
	count("sec/certs/", 1)
	count("cfg/chains/", 1)
	count("sec/unused/", 0)
	if err := changeDomains(t.Context(), s, "a", []string{"-img.example.com"}); err != nil {
		t.Fatal(err)
	}
	count("cfg/certificates/", 0)
	count("sec/certs/", 1)
	after(8 * 24 * time.Hour)
	after(8 * 24 * time.Hour)
	count("sec/", 0)
	count("cfg/chains/", 0)
}

func TestCertificatesGoWithTheirAccount(t *testing.T) {
	t.Parallel()
	s := storeWithDomain(t, store.Config{})
	putCertificate(t, s, "a", certificate("img.example.com", domainUID(t, s, "a", "img.example.com"), "leaf"))
	if err := deleteAccount(t.Context(), s, "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.SweepAccounts(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"cfg/certificates/", "sec/certs/"} {
		if keys := keysBelow(t, s, folder); len(keys) > 0 {
			t.Errorf("%v are left", keys)
		}
	}
}

// An older control plane would leave certificates out of what it sends: so there are none while it
// is there.
func TestNoCertificatesBesideAnOlderControlPlane(t *testing.T) {
	t.Parallel()
	s := storeWithDomain(t, store.Config{})
	if err := s.SetMeta(t.Context(), "schema", "2"); err != nil {
		t.Fatal(err)
	}
	hello := "fleet/" + store.HelloPrefix + "old"
	if err := s.SetKey(t.Context(), hello, []byte(`{"server":"old","schema":2}`)); err != nil {
		t.Fatal(err)
	}
	beside := storetest.Open(t, store.Config{Prefix: s.Prefix()})
	if !beside.Seals() {
		t.Error("secrets are not sealed beside a control plane that can read them")
	}
	uid := domainUID(t, s, "a", "img.example.com")
	put := func() error {
		_, err := beside.PutCertificate(t.Context(), "a", store.RequestID{},
			certificate("img.example.com", uid, "leaf"), nil)
		return err
	}
	if err := put(); !errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "older version") {
		t.Errorf("beside an older control plane: %v", err)
	}
	if err := s.SetKey(t.Context(), hello, []byte(`{"server":"old","schema":3}`)); err != nil {
		t.Fatal(err)
	}
	if err := put(); err != nil {
		t.Errorf("after its upgrade: %v", err)
	}
}

// A follower receives a certificate and its chain in one step, by records that make the same digest
// as those that are loaded.
func TestCertificatesAreFollowed(t *testing.T) {
	t.Parallel()
	s := storeWithDomain(t, store.Config{})
	m := follow(t, s, nil)
	for at := m.account("a"); at.Revision == 0; at = m.account("a") { // until all there is has come
		<-at.Advanced
	}
	uid := domainUID(t, s, "a", "img.example.com")
	put := putCertificate(t, s, "a", certificate("img.example.com", uid, "leaf", "intermediate"))
	for at := m.account("a"); at.Revision < put.Revision; at = m.account("a") {
		<-at.Advanced
	}
	step := m.last()
	var kinds []string
	for _, r := range step.Records {
		kinds = append(kinds, string(r.Key.Kind))
	}
	slices.Sort(kinds)
	if want := []string{"certificates", "chains"}; !slices.Equal(kinds, want) {
		t.Errorf("the step tells of %v, want %v", kinds, want)
	}
	m.check(s)
}

// In the audit, an upload is a change of its domain.
func TestCertificatesInTheAudit(t *testing.T) {
	t.Parallel()
	s := storeWithDomain(t, store.Config{})
	uid := domainUID(t, s, "a", "img.example.com")
	req := store.RequestID{ID: "5f3a8f6e-0000-4000-8000-000000000001", Method: "UploadCertificate", Hash: "h"}
	if _, err := s.PutCertificate(t.Context(), "a", req, certificate("img.example.com", uid, "leaf"), nil); err != nil {
		t.Fatal(err)
	}
	events, _, err := s.Events(t.Context(), "a", 0, 1)
	if err != nil || len(events) != 1 || len(events[0].GetChanges()) != 1 {
		t.Fatalf("events %v, %v", events, err)
	}
	if got := events[0].GetChanges()[0]; got.GetName() != "accounts/a/customDomains/img.example.com" ||
		got.GetAction().String() != "UPDATED" {
		t.Errorf("the audit tells %v", got)
	}
	again, err := s.PutCertificate(t.Context(), "a", req, certificate("img.example.com", uid, "leaf"), nil)
	if err != nil || !again.Replayed {
		t.Errorf("again: %+v, %v", again, err)
	}
	if keys := keysBelow(t, s, "sec/certs/"); len(keys) != 1 {
		t.Errorf("one request has left %v", keys)
	}
}

// Concurrent renewals of one name leave one certificate, and a mark on each of the others.
func TestRacedCertificates(t *testing.T) {
	t.Parallel()
	s := storeWithDomain(t, store.Config{})
	uid := domainUID(t, s, "a", "img.example.com")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.PutCertificate(
				context.WithoutCancel(t.Context()), "a", store.RequestID{},
				certificate("img.example.com", uid, "leaf", "chain"), nil,
			); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	sealed, unused := keysBelow(t, s, "sec/certs/"), keysBelow(t, s, "sec/unused/")
	c := certificateAt(t, s, "a", "img.example.com")
	if len(sealed) != 8 || len(unused) != 7 || slices.Contains(unused, "sec/unused/"+c.ID.String()) {
		t.Errorf("%d sealed, %d unused of 8, in use %s", len(sealed), len(unused), c.ID)
	}
	if !proto.Equal(&topologyv1.Chain{Certificates: [][]byte{[]byte("chain")}}, chainAt(t, s, c.Chain)) {
		t.Error("the chain is another")
	}
}

func chainAt(t *testing.T, s *store.Store, id topology.ChainID) *topologyv1.Chain {
	t.Helper()
	record, _, err := s.Get(t.Context(), topology.Key{Kind: topology.KindChains, ID: id.String()})
	if err != nil {
		t.Fatal(err)
	}
	m, err := record.Decode()
	if err != nil {
		t.Fatal(err)
	}
	return m.(*topologyv1.Chain)
}
