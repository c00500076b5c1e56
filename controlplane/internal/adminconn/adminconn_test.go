package adminconn

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/edgewalk/edgewalk/internal/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seen is what a server knows of a caller.
type seen struct{ address, authorization, certificate string }

// server returns a server that sends what it knows of each caller.
func server(to chan<- seen) *grpc.Server {
	s := grpc.NewServer(grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
		ctx = Incoming(ctx)
		var one seen
		p, _ := peer.FromContext(ctx)
		one.address = p.Addr.String()
		for _, text := range metadata.ValueFromIncomingContext(ctx, "authorization") {
			one.authorization += text
		}
		if secure, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			one.certificate = secure.State.VerifiedChains[0][0].Subject.CommonName
		}
		to <- one
		return ctx, nil
	}))
	healthv1.RegisterHealthServer(s, health.NewServer())
	return s
}

func certificate(t *testing.T) *x509.Certificate {
	t.Helper()
	return certtest.New(t).Issue(nil, func(template *x509.Certificate, _ *crypto.Signer) {
		template.Subject.CommonName = "alice"
	}).Leaf
}

// TestOutgoing holds that the server knows the HTTP client behind a call.
func TestOutgoing(t *testing.T) {
	got := make(chan seen, 1)
	conn, err := New(server(got))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- conn.Serve() }()
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	secure := &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{certificate(t)}}}
	for name, test := range map[string]struct {
		change func(*http.Request) *http.Request
		want   seen
	}{
		"nobody": {func(r *http.Request) *http.Request { return r }, seen{address: "192.0.2.1:1234"}},
		"a token": {func(r *http.Request) *http.Request {
			r.Header.Set("Authorization", "Bearer t1")
			return r
		}, seen{address: "192.0.2.1:1234", authorization: "Bearer t1"}},
		"the token of a session": {func(r *http.Request) *http.Request {
			r.Header.Set("Authorization", "Bearer t1")
			return r.WithContext(WithToken(r.Context(), "t2"))
		}, seen{address: "192.0.2.1:1234", authorization: "Bearer t2"}},
		"a certificate": {func(r *http.Request) *http.Request {
			r.TLS = secure
			return r
		}, seen{address: "192.0.2.1:1234", certificate: "alice"}},
		"a certificate that was not verified": {func(r *http.Request) *http.Request {
			r.TLS = &tls.ConnectionState{PeerCertificates: secure.VerifiedChains[0]}
			return r
		}, seen{address: "192.0.2.1:1234"}},
		"fields of the connection itself": {func(r *http.Request) *http.Request {
			r.Header.Set("Edgewalk-Client-Address", "127.0.0.1:1")
			return r
		}, seen{address: "192.0.2.1:1234"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := test.change(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			if _, err := healthv1.NewHealthClient(conn).Check(
				Outgoing(r), new(healthv1.HealthCheckRequest),
			); err != nil {
				t.Fatal(err)
			}
			if one := <-got; one != test.want {
				t.Errorf("the server saw %+v, want %+v", one, test.want)
			}
		})
	}
}

// TestOthers holds that nobody outside of the process says who he is.
func TestOthers(t *testing.T) {
	got := make(chan seen, 1)
	s := server(got)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	client, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), addressKey, "192.0.2.1:1234", certificateKey,
		string(certificate(t).Raw))
	if _, err := healthv1.NewHealthClient(client).Check(ctx, new(healthv1.HealthCheckRequest)); err != nil {
		t.Fatal(err)
	}
	if one := <-got; one.address == "192.0.2.1:1234" || one.certificate != "" {
		t.Errorf("the server believes a stranger: %+v", one)
	}
}
