package adminsvc

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/media"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// AIP-193: exactly one ErrorInfo, whose reason is at most 63 bytes of upper snake case.
func TestEachKindOfErrorHasACodeAndAReasonOfItsOwn(t *testing.T) {
	t.Parallel()
	reason := regexp.MustCompile(`^[A-Z][A-Z0-9_]{2,61}[A-Z0-9]$`)
	seen := map[string]kind{}
	for k := range kindCount {
		st := status.Convert(toStatus(fail(k, "text %d", k)))
		if st.Code() == codes.OK || st.Code() == codes.Unknown || st.Message() != fmt.Sprintf("text %d", k) {
			t.Errorf("kind %d: %v", k, st)
		}
		var infos []*errdetails.ErrorInfo
		for _, d := range st.Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				infos = append(infos, info)
			}
		}
		if len(infos) != 1 || infos[0].GetDomain() != "edgewalk" || !reason.MatchString(infos[0].GetReason()) {
			t.Errorf("kind %d: ErrorInfo %v", k, infos)
			continue
		}
		if other, ok := seen[infos[0].GetReason()]; ok {
			t.Errorf("kinds %d and %d have the reason %s", k, other, infos[0].GetReason())
		}
		seen[infos[0].GetReason()] = k
	}
}

func TestErrorsOfOtherPackages(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want codes.Code
	}{
		{store.ErrNotFound, codes.NotFound},
		{media.ErrDiskFull, codes.ResourceExhausted},
		{store.ErrAlreadyExists, codes.AlreadyExists},
		{store.ErrConflict, codes.Aborted},
		{store.ErrDeleting, codes.FailedPrecondition},
		{store.ErrTooLarge, codes.FailedPrecondition},
		{&store.TooLargeError{Resources: 2001, Bytes: 5}, codes.FailedPrecondition},
		{store.ErrRequestIDReused, codes.InvalidArgument},
		{store.ErrUnavailable, codes.Unavailable},
		{store.ErrResourceExhausted, codes.ResourceExhausted},
		{store.ErrUnknownOutcome, codes.Unavailable},
		{store.ErrCompacted, codes.Aborted},
		{store.ErrSchemaTooNew, codes.Unavailable},
		{store.ErrEpochChanged, codes.Unavailable},
		{media.ErrNoBytes, codes.Unavailable},
		{fleet.ErrNoEdge, codes.Unavailable},
		{fleet.ErrBusy, codes.ResourceExhausted},
		{rollout.ErrFuture, codes.OutOfRange},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{fmt.Errorf("%w: %w", store.ErrUnavailable, context.DeadlineExceeded), codes.Unavailable},
		{errors.New("disk on fire at /secret/place"), codes.Internal},
	} {
		err := toStatus(fmt.Errorf("read origin: %w", tt.err))
		if got := status.Code(err); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.err, got, tt.want)
		}
		if strings.Contains(err.Error(), "/secret/place") {
			t.Errorf("an internal error is told to the client: %v", err)
		}
	}
}
