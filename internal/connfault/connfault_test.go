package connfault

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// Each kind is read from what gRPC says of a real server of that kind.
func TestOf(t *testing.T) {
	t.Parallel()
	handler := http.NotFoundHandler()
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
	overTLS := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
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
		{"a server that hangs up", hangsUp.Addr().String(), insecure.NewCredentials(), HungUp, ""},
	} {
		conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(c.with))
		if err != nil {
			t.Fatal(err)
		}
		err = conn.Invoke(context.WithoutCancel(t.Context()), "/a/b", nil, nil, grpc.WaitForReady(false))
		conn.Close()
		st := status.Convert(err)
		cause, kind := Of(st.Message())
		if st.Code() != codes.Unavailable || kind != c.want || !strings.HasPrefix(cause, c.cause) ||
			strings.Contains(cause, "desc =") || strings.HasSuffix(cause, `"`) {
			t.Errorf("%s: kind %d, want %d, of %q from %v", c.name, kind, c.want, cause, err)
		}
	}
}
