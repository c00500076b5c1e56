package identity

import (
	"context"
	"crypto/sha256"
	"net"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/jointoken"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// However much a stranger asks, an edge with a token joins, from the stranger's own address too.
// Who asks with a token again and again is bounded by it.
func TestStrangersKeepNoEdgeOut(t *testing.T) {
	t.Parallel()
	r := start(t, storetest.Prefix(), &clock{})
	ask := func(ip, text string) codes.Code {
		t.Helper()
		ctx := peer.NewContext(context.WithoutCancel(t.Context()), &peer.Peer{
			Addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: 4000}, AuthInfo: credentials.TLSInfo{},
		})
		_, csr := newKey(t)
		_, err := service{registry: r}.Join(ctx, &edgev1.JoinRequest{Token: text, Csr: csr})
		return status.Code(err)
	}
	var authority [sha256.Size]byte
	codesOf := map[codes.Code]int{}
	for range 200 {
		codesOf[ask("192.0.2.1", jointoken.New(authority).String())]++
	}
	if n := codesOf[codes.Unauthenticated]; n < strangersBurst || n > 150 ||
		codesOf[codes.ResourceExhausted] != 200-n {
		t.Errorf("200 attempts of a stranger ended with %v", codesOf)
	}
	if code := ask("192.0.2.1", "no token at all"); code != codes.Unauthenticated {
		t.Errorf("what is no token: %v", code)
	}
	real := token(t, r, "fra-1", "eu", "")
	if code := ask("192.0.2.1", real); code != codes.OK {
		t.Errorf("the edge, from the same address: %v", code)
	}
	clear(codesOf)
	for range 200 {
		codesOf[ask("192.0.2.7", real)]++ // with another key each time
	}
	if n := codesOf[codes.ResourceExhausted]; n < 150 || codesOf[codes.OK] != 0 {
		t.Errorf("200 attempts with one token ended with %v", codesOf)
	}
	if code := ask("192.0.2.1", token(t, r, "fra-2", "eu", "")); code != codes.OK {
		t.Errorf("another edge: %v", code)
	}
}
