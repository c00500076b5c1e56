package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// What edges are sent of a certificate lies at `cfg/certificates/{account}/{domain id}`: its id,
// that of its chain, and when it ends. The certificate itself lies, sealed with its key, at
// `sec/certs/{certificate id}`, where it never changes, and which nobody watches. When nothing
// refers to it any more, `sec/unused/{certificate id}` says since when, until both are removed. A
// chain that many certificates have lies at `cfg/chains/-/{chain id}`, for all accounts.

// unusedFor is how long a certificate is kept that nothing refers to any more: edges that are held
// at an older revision still ask for it.
const unusedFor = 7 * 24 * time.Hour

// chainsEvery is the time between two looks at which chains are in use, which read all
// certificates.
const chainsEvery = 24 * time.Hour

// Certificate is a certificate for a custom domain.
type Certificate struct {
	// Domain is the id of the domain, and UID says which domain of that id it is.
	Domain, UID string
	// ID is that of the certificate. Zero: one is made.
	ID topology.CertificateID
	// Pair is the certificate with its key.
	Pair *topologyv1.KeyPair
	// Chain is its intermediates if other certificates have the same. Nil: they are in Pair.
	Chain *topologyv1.Chain
	// NotBefore and NotAfter are when its life begins and ends.
	NotBefore, NotAfter time.Time
	// Proxied is as in [topologyv1.Certificate].
	Proxied bool
	// Facts are what is known of the domain with it. Nil: they stay what they are.
	Facts *storev1.DomainFacts
	// Order is the name below `acme/` of the order that it came from, which goes. Empty: none.
	Order string
}

// Fence is a key of a lease. A write that has one fails with [ErrFenced] unless the key is still
// the one that was made at Revision.
type Fence struct {
	// Key is the whole key in etcd.
	Key string
	// Revision is its create revision.
	Revision int64
}

func (f *Fence) compare() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(f.Key), "=", f.Revision)
}

// checkFence returns [ErrFenced] if a fence has fallen.
func (s *Store) checkFence(ctx context.Context, f *Fence) error {
	if f == nil {
		return nil
	}
	resp, err := s.get(ctx, f.Key, clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	if len(resp.Kvs) == 0 || resp.Kvs[0].CreateRevision != f.Revision {
		return ErrFenced
	}
	return nil
}

// PutCertificate gives a domain of an account a certificate. It returns [ErrNotFound] if the domain
// is gone, or has become another of the same name, and else what [Store.Write] does.
func (s *Store) PutCertificate(
	ctx context.Context, account string, req RequestID, c Certificate, fence *Fence,
) (Result, error) {
	return s.Write(ctx, account, req, func(*State) (*Edit, error) {
		return &Edit{Certificates: []Certificate{c}, Fence: fence}, nil
	})
}

func certificateOf(domain topology.Key) topology.Key {
	return topology.Key{Kind: topology.KindCertificates, Account: domain.Account, ID: domain.ID}
}

func domainOf(certificate topology.Key) topology.Key {
	return topology.Key{Kind: topology.KindCustomDomains, Account: certificate.Account, ID: certificate.ID}
}

// certify adds the certificates of an edit to a plan, and those that go with domains to what it
// deletes. edit may be nil.
func (s *Store) certify(ctx context.Context, p *plan, edit *Edit) error {
	for _, key := range p.deletes {
		if key.Kind != topology.KindCustomDomains {
			continue
		}
		key = certificateOf(key)
		if _, has := p.state.record(key); has && !slices.Contains(p.deletes, key) {
			p.deletes = append(p.deletes, key)
		}
	}
	if edit != nil {
		if p.fence = edit.Fence; p.fence != nil {
			p.compares = append(p.compares, p.fence.compare())
		}
		for _, c := range edit.Certificates {
			if err := s.putCertificate(ctx, p, c); err != nil {
				return err
			}
		}
	}
	now := strconv.FormatInt(s.now().Unix(), 10)
	drop := func(key topology.Key, next []byte) {
		if key.Kind != topology.KindCertificates {
			return
		}
		record, ok := p.state.record(key)
		if !ok {
			return
		}
		c, err := topology.CompileCertificate(record)
		if err != nil {
			return // what cannot be read refers to nothing
		}
		if after, err := topology.CompileCertificate(topology.Record{Key: key, Value: next}); err == nil &&
			after.ID == c.ID {
			return
		}
		p.dropped = append(p.dropped, c.ID)
		p.certificates = append(p.certificates, clientv3.OpPut(s.keys.unused()+c.ID.String(), now))
	}
	for _, put := range p.puts {
		drop(put.key, put.value)
	}
	for _, key := range p.deletes {
		drop(key, nil)
	}
	return nil
}

// putCertificate adds a certificate to a plan.
func (s *Store) putCertificate(ctx context.Context, p *plan, c Certificate) error {
	if s.schema.Load() < certificateSchema {
		if err := s.adoptSchema(ctx); err != nil {
			return err
		}
		if s.schema.Load() < certificateSchema {
			return fmt.Errorf("%w: a control plane of an older version is there, which cannot send certificates to edges", ErrConflict)
		}
	}
	domain := topology.Key{Kind: topology.KindCustomDomains, Account: p.state.Account, ID: c.Domain}
	if err := p.hasDomain(domain, c.UID); err != nil {
		return err
	}
	held, err := s.keyset(ctx, DefaultKeyset)
	if err != nil {
		return err
	}
	id := c.ID
	if id == (topology.CertificateID{}) {
		rand.Read(id[:])
	}
	sealed, err := topology.SealKeyPair(held.ring, DefaultKeyset, p.state.Account, id, c.Pair)
	if err != nil {
		return err
	}
	value, err := topology.Encode(sealed)
	if err != nil {
		return fmt.Errorf("encode certificate of %q: %w", domain, err)
	}
	p.sealed = true
	p.compares = append(p.compares,
		clientv3.Compare(clientv3.CreateRevision(s.keys.dek(DefaultKeyset, held.versions[DefaultKeyset]+1)), "=", 0))
	p.certificates = append(p.certificates, clientv3.OpPut(s.keys.sealedCertificate(id), string(value)))
	p.bytes += len(value)
	record := &topologyv1.Certificate{Id: id[:], NotAfter: c.NotAfter.Unix(), Proxied: c.Proxied}
	if !c.NotBefore.IsZero() {
		record.NotBefore = c.NotBefore.Unix()
	}
	if c.Chain != nil {
		chain := topology.ChainOf(c.Chain)
		record.Chain = chain[:]
		if err := s.putChain(ctx, p, chain, c.Chain); err != nil {
			return err
		}
	}
	encoded, err := topology.Encode(record)
	if err != nil {
		return fmt.Errorf("encode certificate of %q: %w", domain, err)
	}
	p.puts = append(p.puts, encodedPut{certificateOf(domain), encoded})
	if c.Order != "" {
		p.certificates = append(p.certificates, clientv3.OpDelete(s.keys.acme(c.Order)))
	}
	if c.Facts == nil {
		return nil
	}
	facts, err := topology.Encode(c.Facts)
	if err != nil {
		return fmt.Errorf("encode what is known of %q: %w", domain, err)
	}
	p.certificates = append(p.certificates, clientv3.OpPut(s.keys.facts(domain), string(facts)))
	return nil
}

// hasDomain returns [ErrNotFound] unless there is a domain of a uid after the plan.
func (p *plan) hasDomain(key topology.Key, uid string) error {
	if slices.Contains(p.deletes, key) {
		return fmt.Errorf("domain %q: %w", key.ID, ErrNotFound)
	}
	record, ok := p.state.record(key)
	if !ok || topology.UID(key.ID, record.CreateRevision) != uid {
		return fmt.Errorf("domain %q: %w", key.ID, ErrNotFound)
	}
	return nil
}

// putChain adds a chain to a plan, or that it has to be there still.
func (s *Store) putChain(ctx context.Context, p *plan, id topology.ChainID, chain *topologyv1.Chain) error {
	key := topology.Key{Kind: topology.KindChains, ID: id.String()}
	stored, err := s.get(ctx, s.keys.resource(key), clientv3.WithKeysOnly())
	if err != nil {
		return fmt.Errorf("read chain %s: %w", id, err)
	}
	if len(stored.Kvs) > 0 {
		p.compares = append(p.compares, clientv3.Compare(clientv3.CreateRevision(s.keys.resource(key)), ">", 0))
		return nil
	}
	value, err := topology.Encode(chain)
	if err != nil {
		return fmt.Errorf("encode chain %s: %w", id, err)
	}
	p.certificates = append(p.certificates, clientv3.OpPut(s.keys.resource(key), string(value)))
	p.bytes += len(value)
	return nil
}

// maxSealedAtOnce is how many certificates one call of [Store.SealedCertificates] may read.
const maxSealedAtOnce = maxTxnOps

// SealedCertificates returns certificates as they are stored, at most 128. Those that there are not
// are left out.
func (s *Store) SealedCertificates(
	ctx context.Context, ids []topology.CertificateID,
) (map[topology.CertificateID]*topologyv1.SealedCertificate, error) {
	if len(ids) > maxSealedAtOnce {
		return nil, fmt.Errorf("read %d certificates: at most %d at once", len(ids), maxSealedAtOnce)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	byKey := make(map[string]topology.CertificateID, len(ids))
	var ops []clientv3.Op
	for _, id := range ids {
		key := s.keys.sealedCertificate(id)
		if _, twice := byKey[key]; !twice {
			byKey[key] = id
			ops = append(ops, clientv3.OpGet(key))
		}
	}
	found, err := s.readMany(ctx, ops)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	all := make(map[topology.CertificateID]*topologyv1.SealedCertificate, len(found))
	for key, kv := range found {
		stored := new(topologyv1.SealedCertificate)
		if proto.Unmarshal(kv.Value, stored) != nil {
			return nil, fmt.Errorf("%w: %q", ErrBroken, key)
		}
		all[byKey[key]] = stored
	}
	return all, nil
}

// sweepCertificates returns the job that removes certificates, and chains, that nothing has
// referred to for unusedFor.
func (s *Store) sweepCertificates() func(context.Context) error {
	unused := make(map[string]time.Time) // chains, since when
	var dates passes
	var next time.Time
	return func(ctx context.Context) error {
		if err := s.forgetCertificates(ctx, dates.begin(s.now()).Add(-unusedFor)); err != nil {
			return fmt.Errorf("forget certificates: %w", err)
		}
		if s.now().Before(next) {
			return nil
		}
		next = s.now().Add(chainsEvery)
		if err := s.forgetChains(ctx, unused); err != nil {
			return fmt.Errorf("forget chains: %w", err)
		}
		return nil
	}
}

// forgetCertificates removes those that nothing refers to since a time or longer.
func (s *Store) forgetCertificates(ctx context.Context, unusedSince time.Time) error {
	oldest := unusedSince.Unix()
	from, end := s.keys.unused(), clientv3.GetPrefixRangeEnd(s.keys.unused())
	for {
		resp, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(loadPage))
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			from = string(kv.Key) + "\x00"
			since, err := strconv.ParseInt(string(kv.Value), 10, 64)
			if err == nil && since > oldest {
				continue
			}
			id := strings.TrimPrefix(string(kv.Key), s.keys.unused())
			// Each certificate is put once, with the one record that refers to it.
			_, err = s.do(ctx,
				[]clientv3.Op{clientv3.OpDelete(string(kv.Key)), clientv3.OpDelete(s.keys.prefix + "sec/certs/" + id)})
			if err != nil {
				return err
			}
		}
		if !resp.More {
			return nil
		}
	}
}

// forgetChains removes the chains that nothing has referred to for unusedFor, as far as this
// control plane has seen. There are few chains, and seldom one of those.
func (s *Store) forgetChains(ctx context.Context, unused map[string]time.Time) error {
	chains, err := s.get(ctx, s.keys.kind(topology.KindChains), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil || len(chains.Kvs) == 0 {
		return err
	}
	seen, err := s.readStanding(ctx)
	if err != nil {
		return err
	}
	used := make(map[string]bool)
	_, err = s.LoadKind(ctx, topology.KindCertificates, func(records []topology.Record) error {
		for _, record := range records {
			if c, err := topology.CompileCertificate(record); err == nil {
				used[c.Chain.String()] = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	now := s.now()
	for _, kv := range chains.Kvs {
		id := strings.TrimPrefix(string(kv.Key), s.keys.kind(topology.KindChains)+"-/")
		since, known := unused[id]
		switch {
		case used[id]:
			delete(unused, id)
		case !known:
			unused[id] = now
		case now.Sub(since) >= unusedFor:
			// A write in the meantime may refer to it: the next pass finds out.
			err := s.retry(ctx, func(ctx context.Context) error {
				_, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(s.keys.tip()), "=",
					seen.tip.revision)).
					Then(clientv3.OpDelete(string(kv.Key)), s.putTip(rand.Text())).Commit()
				return err
			})
			if err != nil && !errors.Is(err, ErrResourceExhausted) {
				return err
			}
			delete(unused, id)
			return nil // the tip has moved
		}
	}
	return nil
}
