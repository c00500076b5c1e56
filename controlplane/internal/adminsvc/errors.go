package adminsvc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/identity"
	"github.com/edgewalk/edgewalk/controlplane/internal/media"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// errorDomain is the domain of every ErrorInfo.
const errorDomain = "edgewalk"

// kind is the machine-readable cause of an error.
type kind int

const (
	kindInternal kind = iota
	kindInvalidField
	kindUnknownField
	kindSecretRequired
	kindInvalidPageToken
	kindInvalidManifest
	kindRequestIDReused
	kindContentMismatch
	kindUnauthenticated
	kindAuditUnavailable
	kindPermissionDenied
	kindTokensUnavailable
	kindNotFound
	kindAlreadyExists
	kindDomainClaimed
	kindEtagMismatch
	kindContention
	kindExportOutdated
	kindReferenceMissing
	kindInUse
	kindDefaultEndpoint
	kindNotEmpty
	kindDeleting
	kindTooLarge
	kindExportTooLarge
	kindFrozen
	kindRotating
	kindNotManaged
	kindNoIssuer
	kindStoreUnavailable
	kindBrokenRecord
	kindStoreForbidden
	kindOutcomeUnknown
	kindResultUnread
	kindLibraryUnavailable
	kindNoEdge
	kindEdgeFailed
	kindStoreFull
	kindLibraryFull
	kindTooManyRequests
	kindQuota
	kindFutureRevision
	kindOutOfRange
	kindEdgesPending
	kindDeadline
	kindCanceled
	kindCount
)

// kinds is the one table from what went wrong to what a client sees.
var kinds = [kindCount]struct {
	code   codes.Code
	reason string
}{
	kindInternal:           {codes.Internal, "INTERNAL_ERROR"},
	kindInvalidField:       {codes.InvalidArgument, "INVALID_FIELD"},
	kindUnknownField:       {codes.InvalidArgument, "UNKNOWN_FIELD"},
	kindSecretRequired:     {codes.InvalidArgument, "SECRET_REQUIRED"},
	kindInvalidPageToken:   {codes.InvalidArgument, "INVALID_PAGE_TOKEN"},
	kindInvalidManifest:    {codes.InvalidArgument, "INVALID_MANIFEST"},
	kindRequestIDReused:    {codes.InvalidArgument, "REQUEST_ID_REUSED"},
	kindContentMismatch:    {codes.InvalidArgument, "CONTENT_MISMATCH"},
	kindUnauthenticated:    {codes.Unauthenticated, "TOKEN_REQUIRED"},
	kindAuditUnavailable:   {codes.Unavailable, "AUDIT_UNAVAILABLE"},
	kindPermissionDenied:   {codes.PermissionDenied, "PERMISSION_DENIED"},
	kindTokensUnavailable:  {codes.Unavailable, "TOKENS_UNAVAILABLE"},
	kindNotFound:           {codes.NotFound, "RESOURCE_NOT_FOUND"},
	kindAlreadyExists:      {codes.AlreadyExists, "RESOURCE_EXISTS"},
	kindDomainClaimed:      {codes.AlreadyExists, "DOMAIN_CLAIMED"},
	kindEtagMismatch:       {codes.Aborted, "ETAG_MISMATCH"},
	kindContention:         {codes.Aborted, "CONCURRENT_WRITES"},
	kindExportOutdated:     {codes.Aborted, "ACCOUNT_CHANGED"},
	kindReferenceMissing:   {codes.FailedPrecondition, "REFERENCE_MISSING"},
	kindInUse:              {codes.FailedPrecondition, "RESOURCE_IN_USE"},
	kindDefaultEndpoint:    {codes.FailedPrecondition, "DEFAULT_ENDPOINT_REQUIRED"},
	kindNotEmpty:           {codes.FailedPrecondition, "ACCOUNT_NOT_EMPTY"},
	kindDeleting:           {codes.FailedPrecondition, "ACCOUNT_DELETING"},
	kindTooLarge:           {codes.FailedPrecondition, "CHANGE_TOO_LARGE"},
	kindExportTooLarge:     {codes.FailedPrecondition, "EXPORT_TOO_LARGE"},
	kindFrozen:             {codes.FailedPrecondition, "FROZEN"},
	kindRotating:           {codes.FailedPrecondition, "ROTATION_UNDER_WAY"},
	kindNotManaged:         {codes.FailedPrecondition, "CERTIFICATE_NOT_MANAGED"},
	kindNoIssuer:           {codes.FailedPrecondition, "NO_ISSUER"},
	kindStoreUnavailable:   {codes.Unavailable, "STORE_UNAVAILABLE"},
	kindBrokenRecord:       {codes.DataLoss, "RECORD_BROKEN"},
	kindStoreForbidden:     {codes.Unavailable, "STORE_FORBIDDEN"},
	kindOutcomeUnknown:     {codes.Unavailable, "OUTCOME_UNKNOWN"},
	kindResultUnread:       {codes.Unavailable, "RESULT_UNREAD"},
	kindLibraryUnavailable: {codes.Unavailable, "MEDIA_LIBRARY_UNAVAILABLE"},
	kindNoEdge:             {codes.Unavailable, "NO_EDGE_CONNECTED"},
	kindEdgeFailed:         {codes.Unavailable, "EDGE_FAILED"},
	kindStoreFull:          {codes.ResourceExhausted, "STORE_FULL"},
	kindLibraryFull:        {codes.ResourceExhausted, "MEDIA_LIBRARY_FULL"},
	kindTooManyRequests:    {codes.ResourceExhausted, "TOO_MANY_REQUESTS"},
	kindQuota:              {codes.ResourceExhausted, "QUOTA"},
	kindFutureRevision:     {codes.OutOfRange, "REVISION_IN_FUTURE"},
	kindOutOfRange:         {codes.OutOfRange, "REVISION_NOT_KEPT"},
	kindEdgesPending:       {codes.DeadlineExceeded, "EDGES_PENDING"},
	kindDeadline:           {codes.DeadlineExceeded, "DEADLINE_EXCEEDED"},
	kindCanceled:           {codes.Canceled, "CANCELED"},
}

// errorKinds says what an error of another package is.
var errorKinds = []struct {
	err  error
	kind kind
	text string // what a client gets; empty: the error's own words
}{
	{store.ErrUnknownOutcome, kindOutcomeUnknown, "etcd was lost during the write, which may or may not have happened"},
	{store.ErrNotFound, kindNotFound, ""},
	{store.ErrAlreadyExists, kindDomainClaimed, ""},
	{store.ErrConflict, kindContention, "others kept changing the account: try again"},
	{store.ErrDeleting, kindDeleting, "the account is being deleted and takes no writes"},
	{store.ErrTooLarge, kindTooLarge, ""},
	{store.ErrRequestIDReused, kindRequestIDReused, "the request_id was used for another request within the last 15 minutes"},
	{store.ErrResourceExhausted, kindStoreFull, "etcd is full and takes no writes but deletions: run `etcdctl defrag --cluster` and `etcdctl alarm disarm`, or raise its quota"},
	{store.ErrEpochChanged, kindStoreUnavailable, "etcd was restored, and this control plane is about to take in what it holds: try again"},
	{store.ErrSchemaTooNew, kindStoreUnavailable, "a newer edgewalk has written the topology: update this control plane"},
	{store.ErrCompacted, kindContention, "the topology moved on while it was read: try again"},
	{store.ErrBroken, kindBrokenRecord, ""},
	{store.ErrForbidden, kindStoreForbidden, "etcd refuses the user of this control plane: give it back its role, or correct --etcd-user and --etcd-password-file"},
	{store.ErrUnavailable, kindStoreUnavailable, "etcd does not answer"},
	{media.ErrDiskFull, kindLibraryFull, "the control plane's disk has no room for the upload, of which nothing is kept: delete files there, or give --data-dir and a --media-url folder a larger disk"},
	{media.ErrNoBytes, kindLibraryUnavailable, "the media bucket has lost the file's bytes: upload it again"},
	{fleet.ErrNoEdge, kindNoEdge, ""},
	{fleet.ErrBusy, kindTooManyRequests, ""},
	{rollout.ErrFuture, kindFutureRevision, ""},
	{identity.ErrNotFound, kindNotFound, ""},
	{identity.ErrUnknown, kindStoreUnavailable, ""},
	{context.DeadlineExceeded, kindDeadline, "the deadline was too short"},
	{context.Canceled, kindCanceled, "the caller went away"},
}

// failure is an error made for a client.
type failure struct {
	kind kind
	text string
	// fields are paths in the request and what is wrong there.
	fields []fieldFault
	// blockers are the names of resources that stand in the way, and how.
	blockers []blocker
	// resource is the name of the resource that the error is about.
	resource string
	// facts are the variables of text, for programs.
	facts map[string]string
	cause error
}

// fieldFault is what is wrong with a field, which has the path that programs read: that of the
// .proto, from the request on
// (https://pkg.go.dev/google.golang.org/genproto/googleapis/rpc/errdetails#BadRequest_FieldViolation).
type fieldFault struct{ field, text string }

// said is the fault for people: the field as they type it. What is wrong with an id names that
// itself.
func (f fieldFault) said() string {
	switch f.field {
	case "", "account_id", "origin_id", "url_endpoint_id", "custom_domain_id":
		return f.text
	}
	return fieldpath.Typed(f.field) + ": " + f.text
}

type blocker struct{ name, text string }

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

func fail(k kind, format string, args ...any) *failure {
	return &failure{kind: k, text: fmt.Sprintf(format, args...)}
}

func invalid(field, format string, args ...any) *failure {
	return faulty(kindInvalidField, []fieldFault{{field, fmt.Sprintf(format, args...)}})
}

// faulty is the error for fields of a request; its text names the first.
func faulty(k kind, faults []fieldFault) *failure {
	f := &failure{kind: k, text: faults[0].said() + more(len(faults)-1)}
	f.fields = faults[:min(len(faults), maxFaults)]
	return f
}

// more says how many faults a text leaves out.
func more(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}

func notFound(name string) *failure {
	return &failure{kind: kindNotFound, text: fmt.Sprintf("%q does not exist", name), resource: name}
}

func alreadyExists(name string) *failure {
	return &failure{kind: kindAlreadyExists, text: fmt.Sprintf("%q exists already", name), resource: name}
}

// toFailure classifies an error. One that it does not know is internal, and its text goes to the
// log only.
func toFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	for _, k := range errorKinds {
		if !errors.Is(err, k.err) {
			continue
		}
		f := &failure{kind: k.kind, text: k.text, cause: err}
		if f.text == "" {
			f.text = err.Error()
		}
		if k.err == store.ErrUnavailable {
			f.text += because(err)
		}
		if large, ok := errors.AsType[*store.TooLargeError](err); ok {
			f.text = large.Error()
			f.facts = map[string]string{
				"resources": fmt.Sprint(large.Resources), "maxResources": fmt.Sprint(store.MaxResources),
				"bytes": fmt.Sprint(large.Bytes), "maxBytes": fmt.Sprint(store.MaxBytes),
			}
		}
		return f
	}
	switch status.Code(err) { // of a stream that has ended
	case codes.Canceled:
		return &failure{kind: kindCanceled, text: "the caller went away", cause: err}
	case codes.DeadlineExceeded:
		return &failure{kind: kindDeadline, text: "the deadline was too short", cause: err}
	}
	return &failure{kind: kindInternal, text: "internal error; the control plane's log tells more", cause: err}
}

// toStatus is the answer to a call that ended with an error. It has exactly one ErrorInfo.
func toStatus(err error) error {
	f := toFailure(err)
	k := kinds[f.kind]
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: k.reason, Domain: errorDomain, Metadata: f.facts}}
	if len(f.fields) > 0 {
		bad := new(errdetails.BadRequest)
		for _, v := range f.fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: v.field, Description: v.text, Reason: k.reason,
			})
		}
		details = append(details, bad)
	}
	if k.code == codes.FailedPrecondition {
		details = append(details, preconditions(f, k.reason))
	}
	if f.resource != "" {
		details = append(details,
			&errdetails.ResourceInfo{ResourceType: typeOf(f.resource), ResourceName: f.resource, Description: f.text})
	}
	s, detailErr := status.New(k.code, f.text).WithDetails(details...)
	if detailErr != nil {
		return status.Error(k.code, f.text)
	}
	return s.Err()
}

func preconditions(f *failure, reason string) *errdetails.PreconditionFailure {
	p := new(errdetails.PreconditionFailure)
	for _, b := range f.blockers {
		p.Violations = append(p.Violations,
			&errdetails.PreconditionFailure_Violation{Type: reason, Subject: b.name, Description: b.text})
	}
	if len(p.Violations) == 0 {
		p.Violations = []*errdetails.PreconditionFailure_Violation{{
			Type: reason, Subject: f.resource, Description: f.text,
		}}
	}
	return p
}

// typeOf is the type of a resource by its name, as AIP-123 writes types.
func typeOf(name string) string {
	types := []struct {
		kind topology.Kind
		name string
	}{
		{topology.KindAccounts, "Account"}, {topology.KindOrigins, "Origin"},
		{topology.KindURLEndpoints, "UrlEndpoint"}, {topology.KindCustomDomains, "CustomDomain"},
		{topology.KindMediaFiles, "MediaFile"}, {topology.KindPurges, "Purge"},
	}
	for _, t := range types {
		if _, err := topology.ParseName(t.kind, name); err == nil {
			return errorDomain + "/" + t.name
		}
	}
	return errorDomain + "/Edge"
}
