package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
)

// DomainFacts is what is known of a custom domain besides what its owner says. It is kept at
// `dom/{account}/{id}`, which edges are not sent, and goes with the domain.
type DomainFacts struct {
	Key   topology.Key // of the domain
	Facts *storev1.DomainFacts
	// Revision is that of the last change, 0 when there are none.
	Revision int64
}

func domainKey(account, id string) topology.Key {
	return topology.Key{Kind: topology.KindCustomDomains, Account: account, ID: id}
}

// putFacts adds what is known of domains to a transaction, in place of whatever is known by then:
// the account's guard orders them.
func (s *Store) putFacts(p *plan, all []DomainFacts) error {
	for _, f := range all {
		value, err := topology.Encode(f.Facts)
		if err != nil {
			return fmt.Errorf("encode what is known of %q: %w", f.Key, err)
		}
		p.put(s.keys.facts(f.Key), value)
	}
	return nil
}

// Facts returns what is known of a domain. What cannot be read is as if there were none, because it
// will be found out again.
func (s *Store) Facts(ctx context.Context, key topology.Key) (DomainFacts, error) {
	resp, err := s.get(ctx, s.keys.facts(key))
	if err != nil {
		return DomainFacts{}, fmt.Errorf("read what is known of %q: %w", key, err)
	}
	for _, kv := range resp.Kvs {
		return factsOf(key, kv), nil
	}
	return DomainFacts{Key: key}, nil
}

// ListFacts returns what is known of the domains of an account from an id to another, both
// included, by id.
func (s *Store) ListFacts(ctx context.Context, account, from, to string) (map[string]DomainFacts, error) {
	folder := s.keys.domains(account)
	resp, err := s.get(ctx, folder+from, clientv3.WithRange(folder+to+"\x00"))
	if err != nil {
		return nil, fmt.Errorf("read what is known of domains: %w", err)
	}
	found := make(map[string]DomainFacts, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		id := string(kv.Key[len(folder):])
		found[id] = factsOf(domainKey(account, id), kv)
	}
	return found, nil
}

func factsOf(key topology.Key, kv *mvccpb.KeyValue) DomainFacts {
	f := DomainFacts{Key: key, Facts: new(storev1.DomainFacts), Revision: kv.ModRevision}
	if proto.Unmarshal(kv.Value, f.Facts) != nil {
		f.Facts = new(storev1.DomainFacts)
	}
	return f
}

// PutFacts writes what is known of a domain, and returns the revision of that. It returns
// [ErrConflict] unless what is stored is still at f.Revision and the domain is the one that was
// made at the revision created. With a fence it returns [ErrFenced] once that has fallen.
func (s *Store) PutFacts(ctx context.Context, f DomainFacts, created int64, fence *Fence) (int64, error) {
	value, err := topology.Encode(f.Facts)
	if err != nil {
		return 0, fmt.Errorf("encode what is known of %q: %w", f.Key, err)
	}
	key := s.keys.facts(f.Key)
	compares := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(key), "=", f.Revision),
		clientv3.Compare(clientv3.CreateRevision(s.keys.resource(f.Key)), "=", created),
	}
	if fence != nil {
		compares = append(compares, fence.compare())
	}
	var resp *clientv3.TxnResponse
	err = s.retry(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Txn(ctx).If(compares...).
			Then(clientv3.OpPut(key, string(value))).Else(clientv3.OpGet(key)).Commit()
		return err
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("write what is known of %q: %w", f.Key, err)
	case resp.Succeeded:
		return resp.Header.Revision, nil
	}
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		if string(kv.Value) == string(value) { // an earlier copy of the transaction did it
			return kv.ModRevision, nil
		}
	}
	if err := s.checkFence(ctx, fence); err != nil {
		return 0, fmt.Errorf("write what is known of %q: %w", f.Key, err)
	}
	return 0, fmt.Errorf("write what is known of %q: %w", f.Key, ErrConflict)
}

// Holders are the domains whose claims keep a domain from being claimed, at most 10: of its name,
// of the wildcard above it, or of the names below the wildcard that it is. Those of its own account
// are not among them.
func (s *Store) Holders(ctx context.Context, key topology.Key) ([]topology.Key, error) {
	const most = 10
	parent, label := splitDomain(key.ID)
	gets := []clientv3.Op{clientv3.OpGet(s.keys.claim(parent, label)), clientv3.OpGet(s.keys.claim(parent, "*"))}
	if label == "*" {
		gets = []clientv3.Op{clientv3.OpGet(s.keys.claims(parent), clientv3.WithPrefix())}
	}
	resp, err := s.do(ctx, gets)
	if err != nil {
		return nil, fmt.Errorf("read claims: %w", err)
	}
	var holders []topology.Key
	for _, part := range resp.Responses {
		for _, kv := range part.GetResponseRange().Kvs {
			account, name := string(kv.Value), string(kv.Key[len(s.keys.claims(parent)):])
			if account == key.Account {
				continue
			}
			id := wildcardID(parent)
			if name != "*" {
				id = name + "." + parent
			}
			if holders = append(holders, domainKey(account, id)); len(holders) == most {
				return holders, nil
			}
		}
	}
	return holders, nil
}

// DomainToken is what a record in DNS says to prove that a name belongs to an account: 20
// characters of base32 (RFC 4648 6), in lower case. It differs between an account and a later one
// of the same id, and between deployments. It is empty while there are no keys.
func (s *Store) DomainToken(uid string) string {
	if s.ring.mac == nil {
		return ""
	}
	// No account's id begins with a NUL, so this is none of the texts that [Store.MAC] takes.
	h := hmac.New(sha256.New, s.ring.mac)
	h.Write([]byte("\x00domain\x00" + uid))
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)))[:20]
}
