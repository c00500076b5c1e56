package control

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/internal/connfault"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// ErrStranger is what Probe returns where a control plane answers that it takes no edge without a
// token or a certificate, or not with those that it was shown.
var ErrStranger = errors.New("refused")

// Probe asks the control plane at an address something as an edge with this configuration, and
// returns what is wrong and what may fix that. It changes nothing there: it does not say which edge
// asks, and asks for a certificate that nobody has. Of c only what is needed to connect counts.
func Probe(ctx context.Context, c Config, address string) error {
	c.Addresses = []string{address}
	if err := c.validate(); err != nil {
		return err
	}
	conn, err := c.dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = edgev1.NewEdgeServiceClient(conn).FetchCertificates(ctx, &edgev1.FetchCertificatesRequest{
		Ids: [][]byte{make([]byte, 16)},
	})
	st := status.Convert(err)
	text := st.Message()
	_, kind := connfault.Of(text)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.New("no word from it")
	case kind == connfault.NoService, kind == connfault.NoGRPC:
		return errors.New("who answers there takes no edges: name the address of its --edge-addr with --control-plane")
	case st.Code() == codes.Unimplemented:
		return nil // It is of an older version, and lets the edge in.
	case st.Code() == codes.Unauthenticated, st.Code() == codes.PermissionDenied:
		return fmt.Errorf("%w: %s", ErrStranger, strings.TrimPrefix(text, "refused: "))
	case st.Code() != codes.Unavailable:
		return errors.New(text)
	}
	why, fix := ending{err: err}.words(c.TLS != nil)
	if fix == "" {
		return errors.New(why)
	}
	return fmt.Errorf("%s: %s", why, fix)
}
