package edgesvc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed/feedtest"
	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/identity"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/busyclock"
	"github.com/edgewalk/edgewalk/internal/jointoken"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// joined is an edge that has a certificate.
type joined struct{ conf *tls.Config }

// join makes a token and joins with it, over the network.
func (p *plane) join(tb testing.TB, edge, region, pool string) joined {
	tb.Helper()
	var token jointoken.Token
	await.True(tb, "the first authority", func() bool {
		var err error
		token, _, err = p.identities.CreateJoinToken(tb.Context(), edge, region, pool, time.Hour)
		return err == nil
	})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
	if err != nil {
		tb.Fatal(err)
	}
	// How an edge knows the control plane is the business of its own package.
	conf := &tls.Config{
		ServerName: jointoken.ServerName(token.Authority), InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
	}
	conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	resp, err := edgev1.NewIdentityServiceClient(conn).Join(tb.Context(),
		&edgev1.JoinRequest{Token: token.String(), Csr: csr})
	if err != nil {
		tb.Fatal(err)
	}
	conf.Certificates = []tls.Certificate{{
		Certificate: [][]byte{resp.GetCertificate().GetCertificate()}, PrivateKey: key,
	}}
	return joined{conf}
}

func (j joined) shown(a *agent) { a.transport = credentials.NewTLS(j.conf) }

// refused reports whether a stream ended with a status that says something.
func refused(tb testing.TB, a *agent, code codes.Code, says string) {
	tb.Helper()
	if err := a.ends(); status.Code(err) != code || !strings.Contains(err.Error(), says) {
		tb.Errorf("%v, want %s with %q", err, code, says)
	}
}

// Who has the shared token of edges, or another edge's certificate, takes no edge's id, however
// long it tries: it is sent nothing, and a wait counts the edge that has the key. Without
// certificates it would have the id after 15 s.
func TestNobodyTakesTheIDOfAnEdgeThatHasJoined(t *testing.T) {
	t.Parallel()
	p := startPlaneWith(t, storetest.Prefix(), planeConfig{joins: true})
	edge := p.join(t, "fra-1", "fra", "")
	real := connect(t, p, hello("whatever-it-says"), edge.shown)
	real.reaches(p.setting(t, "one"))
	for range 3 {
		thief := connect(t, p, hello("fra-1"))
		refused(t, thief, codes.PermissionDenied, "belongs to an edge that has joined")
		if len(thief.last) > 0 {
			t.Errorf("the thief was sent %v", thief.last)
		}
		p.clock.forward(fleet.HandOver)
	}
	other := connect(t, p, hello("fra-1"), p.join(t, "thief", "eu", "").shown)
	other.reaches(p.setting(t, "two"))
	var ids []string
	for _, e := range p.Fleet.Edges() {
		if e.GetConnected() {
			ids = append(ids, e.GetId()+" in "+e.GetRegion())
		}
	}
	if got := strings.Join(ids, ", "); got != "fra-1 in fra, thief in eu" {
		t.Errorf("the edges are %s", got)
	}
	// The edge falls silent; what the thief acknowledges does not count for it.
	real.leave()
	connect(t, p, hello("fra-1"), silent, edge.shown).message("*edgev1.SyncResponse_Welcome")
	other.reaches(p.setting(t, "three"))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if resp, err := p.Fleet.WaitApplied(ctx, p.feed.Revision(), "", 1); err == nil {
		t.Errorf("%v is said to be applied everywhere", resp)
	}
}

// A stream without a certificate gives way as soon as the edge of its id has joined.
func TestJoiningTakesTheIDOver(t *testing.T) {
	t.Parallel()
	p := startPlaneWith(t, storetest.Prefix(), planeConfig{joins: true})
	before := connect(t, p, hello("fra-1"))
	before.reaches(p.setting(t, "one"))
	edge := p.join(t, "fra-1", "eu", "")
	refused(t, before, codes.PermissionDenied, "has joined")
	connect(t, p, hello("fra-1"), edge.shown).reaches(p.setting(t, "two"))
}

// Who came with the id of an edge that has joined before this control plane had read that, leaves
// once it has.
func TestReadingWhoHasJoinedTakesTheIDOver(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p := startPlaneWith(t, prefix, planeConfig{joins: true})
	p.join(t, "fra-1", "fra", "")
	var late *identity.Registry
	q := startPlaneWith(t, prefix, planeConfig{change: func(s *Service) {
		late = identity.New(identity.Config{Store: s.cfg.Store, Logger: s.log})
		late.OnChange(s.identityChanged)
		s.cfg.Identities = late
	}})
	thief := connect(t, q, hello("fra-1"))
	thief.reaches(q.setting(t, "one"))
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = late.Run(ctx) })
	defer run.Wait()
	defer cancel()
	refused(t, thief, codes.PermissionDenied, "has joined")
}

// The same key is the same edge, also under another boot id: it takes over at once, at every
// control plane.
func TestTheSameKeyTakesOverAtOnce(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p := startPlaneWith(t, prefix, planeConfig{joins: true})
	other := startPlaneWith(t, prefix, planeConfig{joins: true})
	edge := p.join(t, "fra-1", "eu", "")
	first := connect(t, p, hello("fra-1"), edge.shown)
	first.reaches(p.setting(t, "one"))
	again := hello("fra-1")
	again.BootId = "started-again"
	second := connect(t, p, again, edge.shown)
	second.reaches(p.setting(t, "two"))
	refused(t, first, codes.Aborted, "taken over")
	await.True(t, "the other control plane to know the edge", func() bool { return other.identities.Owned("fra-1") })
	third := hello("fra-1")
	third.BootId = "moved"
	connect(t, other, third, edge.shown).reaches(p.setting(t, "three"))
}

// Under load, with many edges, the streams of the one that is revoked end within 2 s at every
// control plane, and no other.
func TestRevokeUnderLoad(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	planes := []*plane{
		startPlaneWith(t, prefix, planeConfig{joins: true}), startPlaneWith(t, prefix, planeConfig{joins: true}),
	}
	var edges []*agent
	for i := range 20 {
		id := fmt.Sprintf("edge-%d", i)
		edge := planes[0].join(t, id, "eu", "")
		at := planes[i%2]
		await.True(t, "the control plane to know the edge", func() bool { return at.identities.Owned(id) })
		edges = append(edges, connect(t, at, hello(id), edge.shown))
	}
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			planes[0].origins(t, fmt.Sprintf("load-%d", i%5), 3, fmt.Sprintf("http://example.com/%d", i))
		}
	})
	defer load.Wait()
	defer stop()
	for _, victim := range edges[:4] {
		victim.reaches(planes[0].feed.Revision())
		if _, err := planes[0].identities.Revoke(t.Context(), victim.hello.GetId()); err != nil {
			t.Fatal(err)
		}
		took := busyclock.Start(t)
		refused(t, victim, codes.Unauthenticated, "was revoked")
		if took := took(); took > 2*time.Second {
			t.Errorf("the stream of %s ended after %s", victim.hello.GetId(), took)
		}
		refused(
			t, connect(t, planes[1], hello(victim.hello.GetId()), func(a *agent) { a.transport = victim.transport }),
			codes.Unauthenticated, "was revoked",
		)
	}
	stop()
	load.Wait()
	last := planes[0].setting(t, "last")
	for _, e := range edges[4:] {
		e.reaches(last)
	}
}

// The stream of an edge ends with its certificate, and it gets no other one until it has joined
// again.
func TestStreamEndsWithTheCertificate(t *testing.T) {
	t.Parallel()
	p := startPlaneWith(t, storetest.Prefix(), planeConfig{joins: true})
	edge := p.join(t, "fra-1", "eu", "")
	a := connect(t, p, hello("fra-1"), edge.shown)
	a.reaches(p.setting(t, "one"))
	p.clock.forward(7*24*time.Hour + time.Minute)
	refused(t, a, codes.Unauthenticated, "has ended")
	refused(t, connect(t, p, hello("fra-1"), edge.shown), codes.Unauthenticated, "has ended")
}

// Where who reaches the listener is not trusted, an edge needs a certificate, and may do nothing
// before but join.
func TestEdgesHaveToJoin(t *testing.T) {
	t.Parallel()
	p := startPlaneWith(t, storetest.Prefix(), planeConfig{joins: true, closed: true})
	edge := p.join(t, "fra-1", "eu", "")
	connect(t, p, hello("fra-1"), edge.shown).reaches(p.setting(t, "one"))
	refused(t, connect(t, p, hello("fra-2")), codes.Unauthenticated, "has to join")
	stranger := joined{&tls.Config{
		InsecureSkipVerify: true, ServerName: edge.conf.ServerName, MinVersion: tls.VersionTLS13,
	}}
	refused(t, connect(t, p, hello("fra-2"), stranger.shown), codes.Unauthenticated, "has to join")
	for _, transport := range []credentials.TransportCredentials{
		insecure.NewCredentials(), credentials.NewTLS(stranger.conf),
	} {
		conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(transport))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		service := edgev1.NewIdentityServiceClient(conn)
		if _, err := service.Renew(
			t.Context(), &edgev1.RenewRequest{Csr: []byte{1}},
		); status.Code(err) != codes.Unauthenticated {
			t.Errorf("renew: %v", err)
		}
		if _, err := service.Join(t.Context(), &edgev1.JoinRequest{Token: "guessed", Csr: []byte{1}}); err == nil {
			t.Error("a guessed token is taken")
		}
	}
}

// What lies below auth/ in etcd is no part of what edges are sent.
func TestAuthIsNotSent(t *testing.T) {
	t.Parallel()
	p := startPlaneWith(t, storetest.Prefix(), planeConfig{joins: true})
	edge := p.join(t, "fra-1", "eu", "")
	if _, err := p.store.ChangeAuth(
		t.Context(), store.Entry{Key: "tokens/canary", Value: []byte("canary")},
	); err != nil {
		t.Fatal(err)
	}
	a := connect(t, p, hello("fra-1"), edge.shown)
	live := connect(t, p, hello("anonymous"))
	live.reaches(p.setting(t, "one"))
	before := len(live.edge.Records)
	if _, err := p.store.ChangeAuth(
		t.Context(), store.Entry{Key: "tokens/canary-2", Value: []byte("canary")},
	); err != nil {
		t.Fatal(err)
	}
	last := p.setting(t, "two")
	for _, one := range []*agent{a, live} {
		one.reaches(last)
		one.until("hold the settings alone", func(e *feedtest.Edge) bool {
			for key, c := range e.Records {
				if strings.Contains(key, "auth") || strings.Contains(string(c.GetValue()), "canary") {
					t.Errorf("the edge was sent %s", key)
				}
			}
			return len(e.Records) == before
		})
	}
}
