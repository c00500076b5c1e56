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
		own := id
		if c.several != uuid.Nil {
			id = c.several.String()
			content, err := proto.MarshalOptions{Deterministic: true}.Marshal(req.(proto.Message))
			if err != nil {
				return err
			}
			own = uuid.NewSHA1(c.several, append([]byte(method), content...)).String()
		}
		r.Set(field, protoreflect.ValueOfString(own))
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
	select {
	case <-ctx.Done():
	case <-time.After(repeatAfter):
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

// writeSeveral is called by a command that makes several writes. Each then has an id that is made
// of the command's and of what it asks for, so that all of them are repeated under the command's.
func (c *cli) writeSeveral() (err error) {
	c.several, err = c.commandID()
	return err
}

// commandID is the id that --request-id gives a command, else a new one.
func (c *cli) commandID() (uuid.UUID, error) {
	if c.requestID == "" {
		return uuid.New(), nil
	}
	id, err := uuid.Parse(c.requestID)
	if err != nil {
		return id, usagef("--request-id %q is no UUID", c.requestID)
	}
	return id, nil
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
