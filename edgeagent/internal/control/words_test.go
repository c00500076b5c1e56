package control

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The log says what may be wrong, and not what gRPC calls it.
func TestEndingInWords(t *testing.T) {
	t.Parallel()
	connection := func(text string) error {
		return status.Error(codes.Unavailable, `connection error: desc = "`+text+`"`)
	}
	const strangers = "tls: failed to verify certificate: x509: certificate signed by unknown authority"
	const noTLS = "tls: first record does not look like a TLS handshake"
	const reset = "error reading from server: read: connection reset by peer"
	for _, c := range []struct {
		err      error
		inStep   bool
		secure   bool
		why, fix string // what fix begins with
	}{
		{err: connection("transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"),
			why: "dial tcp 127.0.0.1:1: connect: connection refused"},
		{err: connection("error reading server preface: EOF"), why: "error reading server preface: EOF",
			fix: "it may ask for TLS: use --ca"},
		{err: connection("error reading server preface: EOF"), secure: true, why: "error reading server preface: EOF",
			fix: "it may ask for a certificate"},
		{err: connection("transport: authentication handshake failed: " + strangers),
			secure: true, why: strangers,
			fix: "name the CA of its certificate with --ca"},
		{err: connection("transport: authentication handshake failed: " + noTLS), secure: true, why: noTLS,
			fix: "it does not speak TLS"},
		{err: status.Error(codes.Unavailable, reset), inStep: true, why: reset},
		{err: status.Error(codes.Unauthenticated, "no"), why: "refused: no"},
		{err: status.Error(codes.Unauthenticated, "refused: no"), why: "refused: no"},
		{err: status.Error(codes.Internal, "no"), why: "rpc error: code = Internal desc = no"},
		{err: errors.New("of the disk"), why: "of the disk"},
	} {
		why, fix := ending{err: c.err, inStep: c.inStep}.words(c.secure)
		if why != c.why || !strings.HasPrefix(fix, c.fix) || (fix == "") != (c.fix == "") {
			t.Errorf("%v: %q, fix %q; want %q, fix %q", c.err, why, fix, c.why, c.fix)
		}
	}
}
