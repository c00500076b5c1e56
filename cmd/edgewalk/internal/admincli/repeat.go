package admincli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// repeatAfter is the time before a write of unknown outcome is repeated: about that of an election
// in etcd.
const repeatAfter = time.Second

// identify gives each write an id, under which it happens at most once, and repeats it once when
// nobody knows whether it has happened. A command that gives a write an id prints how to repeat it.
func (c *cli) identify(
	ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	r := req.(proto.Message).ProtoReflect()
	field := r.Descriptor().Fields().ByName("request_id")
	if field == nil {
		return invoke(ctx, method, req, reply, conn, opts...)
	}
	identified := r.Has(field)
	id := cmp.Or(c.requestID, uuid.NewString())
	if !identified {
		r.Set(field, protoreflect.ValueOfString(id))
	}
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err() // nothing is sent
	}
	err := invoke(ctx, method, req, reply, conn, opts...)
	if only := r.Descriptor().Fields().ByName("validate_only"); only != nil && r.Get(only).Bool() && ctx.Err() != nil {
		return err
	}
	if !unknownOutcome(err) {
		return err
	}
	pause := time.NewTimer(repeatAfter)
	defer pause.Stop()
	select {
	case <-ctx.Done():
	case <-pause.C:
		if err = invoke(ctx, method, req, reply, conn, opts...); status.Code(err) != codes.Unavailable {
			return err
		}
	}
	if identified {
		return err
	}
	return &apiError{fmt.Sprintf("nobody knows whether it has happened (%s)\n  Repeat it with --request-id %s: then it happens once, if it has not yet.",
		status.Convert(err).Message(), id), err}
}

// unknownOutcome reports whether a request was sent, and neither done nor refused as far as anybody
// knows, also because this command was interrupted.
func unknownOutcome(err error) bool {
	st := status.Convert(err)
	if reason := reasonOf(st); reason != "" {
		return reason == "OUTCOME_UNKNOWN"
	}
	return st.Code() == codes.Canceled ||
		st.Code() == codes.Unavailable && !strings.HasPrefix(st.Message(), "connection error")
}
