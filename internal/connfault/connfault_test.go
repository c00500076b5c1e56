package connfault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// Each kind is read from what gRPC says of a real server of that kind.
func TestOf(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	plain := httptest.NewServer(handler)
	t.Cleanup(plain.Close)
	secure := httptest.NewUnstartedServer(handler)
	secure.EnableHTTP2, secure.Config.ErrorLog = true, log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	hangsUp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangsUp.Close() })
	go func() {
		for {
			conn, err := hangsUp.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections for it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := grpc.NewServer()
	t.Cleanup(other.Stop)
	go func() { _ = other.Serve(listener) }()
	overTLS := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	trusted := x509.NewCertPool()
	trusted.AddCert(secure.Certificate())
	trusting := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trusted})
	for _, c := range []struct {
		name, address string
		with          credentials.TransportCredentials
		want          Kind
		cause         string
	}{
		{"nobody", "127.0.0.1:1", insecure.NewCredentials(), Away, "dial tcp 127.0.0.1:1: connect: "},
		{"HTTP in place of TLS", plain.Listener.Addr().String(), overTLS, NoTLS, "tls: first record does not"},
		{"a stranger's certificate", secure.Listener.Addr().String(), overTLS, Untrusted, "tls: failed to verify"},
		{"HTTP", plain.Listener.Addr().String(), insecure.NewCredentials(), NoGRPC, "error reading server preface: "},
		{"HTTP over TLS", secure.Listener.Addr().String(), trusting, NoGRPC, "unexpected HTTP status code"},
		{"another service", listener.Addr().String(), insecure.NewCredentials(), NoService, "unknown service a"},
		{"a server that hangs up", hangsUp.Addr().String(), insecure.NewCredentials(), HungUp, ""},
		{"a server that says nothing", silent.Addr().String(), insecure.NewCredentials(), Silent, "it takes"},
		{"the same over TLS", silent.Addr().String(), overTLS, Silent, "it takes"},
	} {
		patience := 20 * time.Second
		if c.want == Silent {
			patience = 100 * time.Millisecond
		}
		conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(c.with),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: patience}))
		if err != nil {
			t.Fatal(err)
		}
		err = conn.Invoke(context.WithoutCancel(t.Context()), "/a/b", nil, nil, grpc.WaitForReady(false))
		conn.Close()
		st := status.Convert(err)
		cause, kind := Of(st.Message())
		known := st.Code() == codes.Unavailable || st.Code() == codes.Unimplemented
		if !known || kind != c.want || !strings.HasPrefix(cause, c.cause) || strings.Contains(cause, "desc =") ||
			strings.HasSuffix(cause, `"`) {
			t.Errorf("%s: kind %d, want %d, of %q from %v", c.name, kind, c.want, cause, err)
		}
	}
}
