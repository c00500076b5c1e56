package store

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// The kinds of errors, for [errors.Is]. Any other error is a bug or broken data.
var (
	// ErrNotFound says that the resource, or the account it would belong to, does not exist.
	ErrNotFound = errors.New("not found")
	// ErrAlreadyExists says that a name is taken; see [ClaimedError].
	ErrAlreadyExists = errors.New("already exists")
	// ErrConflict says that others kept changing the account until the caller's deadline.
	ErrConflict = errors.New("conflict")
	// ErrFenced says that the lease which a write depends on is no longer held. Nothing was
	// written.
	ErrFenced = errors.New("the lease is no longer held")
	// ErrDeleting says that the account is being deleted and takes no writes.
	ErrDeleting = errors.New("account is being deleted")
	// ErrTooLarge says that one change is larger than one step may be, see [TooLargeError], or than
	// etcd takes.
	ErrTooLarge = errors.New("too large for one step")
	// ErrRequestIDReused says that the request id was used for another request before.
	ErrRequestIDReused = errors.New("request id was used for another request")
	// ErrUnavailable says that etcd did not answer; see [UnavailableError]. From a write it says
	// that nothing was written.
	ErrUnavailable = errors.New("etcd unavailable")
	// ErrResourceExhausted says that etcd takes no more data. Nothing was written.
	ErrResourceExhausted = errors.New("etcd quota exceeded")
	// ErrForbidden says that etcd refuses the user that this store logs in as. Nothing was written.
	ErrForbidden = errors.New("etcd refuses its user")
	// ErrBroken says that etcd holds something that cannot be read where only this package writes.
	ErrBroken = errors.New("a record in etcd cannot be read")
	// ErrUnknownOutcome says that a write was sent and may or may not have taken effect. The same
	// request id finds out later.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrCompacted says that etcd no longer keeps the asked revision.
	ErrCompacted = errors.New("revision is no longer kept")
	// ErrOutOfRange says that an account's history does not reach to a revision; see
	// [HistoryError].
	ErrOutOfRange = errors.New("the history does not reach there")
	// ErrSchemaTooNew says that a newer edgewalk has written the topology.
	ErrSchemaTooNew = errors.New("topology was written by a newer version")
	// ErrServerTooOld says that a member of etcd lacks what is needed.
	ErrServerTooOld = fmt.Errorf("etcd must have version %d.%d or newer", oldest.major, oldest.minor)
	// ErrEpochChanged says that etcd holds another history than the one that was opened.
	ErrEpochChanged = errors.New("etcd holds another history")
)

// ClaimedError says which domain belongs to another account, and not to which. It is an
// [ErrAlreadyExists].
type ClaimedError struct {
	// Domain is the name as it was asked for, such as `*.example.com`.
	Domain string
}

func (e *ClaimedError) Error() string {
	return fmt.Sprintf("domain %q: %v", e.Domain, ErrAlreadyExists)
}

// Is makes e an [ErrAlreadyExists].
func (e *ClaimedError) Is(target error) bool { return target == ErrAlreadyExists }

// TooLargeError says how large a change was. It is an [ErrTooLarge].
type TooLargeError struct {
	// Resources is the number of changed resources, Bytes the size of all written keys and values.
	Resources, Bytes int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%d changed resources of %d bytes are too large for one step: at most %d resources and %d bytes; apply in parts",
		e.Resources, e.Bytes, MaxResources, MaxBytes)
}

// Is makes e an [ErrTooLarge].
func (e *TooLargeError) Is(target error) bool { return target == ErrTooLarge }

// UnavailableError says why etcd does not answer, as far as its members say. It wraps Err.
type UnavailableError struct {
	// Reason is for people, and says nothing of where etcd is.
	Reason string
	Err    error
}

func (e *UnavailableError) Error() string { return e.Err.Error() + " (" + e.Reason + ")" }

func (e *UnavailableError) Unwrap() error { return e.Err }

// kind gives an error of etcd one of the kinds above. Errors of ctx stay what they are.
func kind(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: %w", ErrResourceExhausted, err)
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("%w: %w", ErrCompacted, err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		return fmt.Errorf("%w: %w, which its --max-request-bytes sets", ErrTooLarge, err)
	case isForbidden(err):
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	case isRefusal(err) && !errors.Is(err, rpctypes.ErrTooManyRequests):
		return err
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

// isForbidden reports whether etcd's answer is about the user's name, password or role.
func isForbidden(err error) bool {
	for _, forbidden := range []error{
		rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound,
		rpctypes.ErrInvalidAuthToken,
		rpctypes.ErrAuthOldRevision,
	} {
		if errors.Is(err, forbidden) {
			return true
		}
	}
	return false
}

// isRefusal reports whether etcd's answer says that it did not and will not apply the request.
func isRefusal(err error) bool {
	for _, refusal := range []error{
		rpctypes.ErrEmptyKey, rpctypes.ErrTooManyOps, rpctypes.ErrDuplicateKey, rpctypes.ErrRequestTooLarge,
		rpctypes.ErrFutureRev, rpctypes.ErrCompacted, rpctypes.ErrTooManyRequests, rpctypes.ErrLeaseNotFound,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return isForbidden(err)
}
