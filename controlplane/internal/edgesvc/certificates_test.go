package edgesvc

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// certified gives an account a domain with a certificate.
func (p *plane) certified(tb testing.TB, account string) topology.CertificateID {
	tb.Helper()
	id := account + ".example.com"
	key := topology.Key{Kind: topology.KindCustomDomains, Account: account, ID: id}
	p.edit(tb, account, store.Put{Key: key, Message: &topologyv1.CustomDomain{
		Domain: id, Mode: topologyv1.CustomDomain_ACCOUNT, State: topologyv1.CustomDomain_ACTIVE,
	}})
	domain, _, err := p.store.Get(context.Background(), key)
	if err != nil {
		tb.Fatal(err)
	}
	_, err = p.store.PutCertificate(context.Background(), account, store.RequestID{}, store.Certificate{
		Domain: id, UID: topology.UID(id, domain.CreateRevision), NotAfter: time.Unix(2e9, 0),
		Pair:  &topologyv1.KeyPair{Leaf: []byte("leaf of " + account), Key: []byte("key")},
		Chain: &topologyv1.Chain{Certificates: [][]byte{[]byte("intermediate")}},
	}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	key.Kind = topology.KindCertificates
	record, _, err := p.store.Get(context.Background(), key)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := topology.CompileCertificate(record)
	if err != nil {
		tb.Fatal(err)
	}
	p.reach(tb, record.ModRevision)
	return c.ID
}

// fetch asks for certificates without a stream.
func (p *plane) fetch(
	tb testing.TB, transport credentials.TransportCredentials, ids ...topology.CertificateID,
) (map[topology.CertificateID]*topologyv1.SealedCertificate, error) {
	tb.Helper()
	conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(transport))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	req := new(edgev1.FetchCertificatesRequest)
	for _, id := range ids {
		req.Ids = append(req.Ids, id[:])
	}
	answer, err := edgev1.NewEdgeServiceClient(conn).FetchCertificates(context.Background(), req)
	found := make(map[topology.CertificateID]*topologyv1.SealedCertificate)
	for _, c := range answer.GetCertificates() {
		found[topology.CertificateID(c.GetId())] = c
	}
	return found, err
}

// An edge is given the certificates of the accounts that it is sent, and no others, as they are
// stored: sealed with the keys of its stream.
func TestFetchCertificates(t *testing.T) {
	t.Parallel()
	p := startPlaneWith(t, storetest.Prefix(), planeConfig{joins: true})
	p.account(t, "acme", "gold")
	p.account(t, "globex")
	acme, globex := p.certified(t, "acme"), p.certified(t, "globex")
	gold := credentials.NewTLS(p.join(t, "gold", "eu", "gold").conf)
	iron := credentials.NewTLS(p.join(t, "iron", "eu", "iron").conf)
	for _, c := range []struct {
		edge, pool string
		transport  credentials.TransportCredentials
		want       []topology.CertificateID
	}{
		{"of pool gold", "gold", gold, []topology.CertificateID{acme}},
		{"of pool iron", "iron", iron, nil},
		{"of no pool", "", insecure.NewCredentials(), []topology.CertificateID{acme, globex}},
	} {
		found, err := p.fetch(t, c.transport, acme, globex, topology.CertificateID{1}, acme)
		if err != nil || len(found) != len(c.want) {
			t.Errorf("an edge %s gets %d certificates, %v; want %d", c.edge, len(found), err, len(c.want))
		}
		for _, id := range c.want {
			pair, err := topology.OpenKeyPair(p.store.EdgeKeys(c.pool), id, found[id])
			if err != nil || len(pair.GetLeaf()) == 0 {
				t.Errorf("an edge %s cannot open %s: %v", c.edge, id, err)
			}
			if found[id].GetAccount() != "" {
				t.Errorf("it is told whose %s is", id)
			}
		}
	}
}

func TestFetchCertificatesIsBounded(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), func(s *Service) { s.now = func() time.Time { return time.Unix(1.8e9, 0) } })
	plain := insecure.NewCredentials()
	ids := make([]topology.CertificateID, 65)
	for i := range ids {
		ids[i] = topology.CertificateID{byte(i), 1}
	}
	if _, err := p.fetch(t, plain, ids...); status.Code(err) != codes.InvalidArgument {
		t.Errorf("65 at once: %v", err)
	}
	for i := range fetchBurst / 64 {
		if _, err := p.fetch(t, plain, ids[:64]...); err != nil {
			t.Fatal(fmt.Errorf("call %d: %w", i, err))
		}
	}
	if _, err := p.fetch(t, plain, ids[:64]...); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("more than are allowed at once: %v", err)
	}
}
