package adminsvc

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/rules"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// writeRequest is what requests that write have in common.
type writeRequest interface {
	proto.Message
	GetRequestId() string
	GetValidateOnly() bool
}

// requestID is what the store remembers of a request, and of who makes it. Of its content that is
// only a hash, because it may hold secrets. A request without an id is given one, with which it can
// be repeated if its outcome is unknown. resource is the name of what it writes.
func requestID(
	ctx context.Context, id string, req proto.Message, more, resource string,
) (store.RequestID, error) {
	assigned := id == ""
	if assigned {
		id = uuid.NewString()
		r := req.ProtoReflect()
		r.Set(r.Descriptor().Fields().ByName("request_id"), protoreflect.ValueOfString(id))
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return store.RequestID{}, err
	}
	sum := sha256.Sum256(append(b, more...))
	method, _ := grpc.Method(ctx)
	request := store.RequestID{
		ID: strings.ToLower(id), Method: method[strings.LastIndexByte(method, '/')+1:],
		Hash: hex.EncodeToString(sum[:]), Assigned: assigned,
		Who: whoOf(ctx), Peer: peerOf(ctx), Resource: resource,
	}
	if caller := auth.From(ctx); caller != nil {
		request.Role = caller.Token.GetRole()
	}
	return request, nil
}

// outcome is how a write ended.
type outcome struct {
	revision int64
	// draft is the account as it is then, or would be for a request that only checks. What is
	// answered comes from it and from no read, which could fail after the write. It is nil if an
	// earlier request with the same id made the change.
	draft *draft
	// committed says that the request was to write and that this is done, now or by an earlier
	// request.
	committed bool
	// at is the revision to read what an earlier request wrote at: that of the write, or 0, the
	// current one, where nothing was written, or for longer than etcd keeps revisions.
	at int64
	// changed is the revision of the last change of the account then, 0 if there is no account.
	changed int64
}

// write changes an account. change works on a draft and may run several times; resource is the name
// of what it writes.
func (s *Service) write(
	ctx context.Context,
	req writeRequest,
	account, resource string,
	change func(*draft) error,
) (outcome, error) {
	now := s.now()
	var last *draft
	decide := func(state *store.State) (*store.Edit, error) {
		d, err := newDraft(state, now)
		if err != nil {
			return nil, err
		}
		if s.believed(auth.From(ctx)) {
			d.newDomain = topologyv1.CustomDomain_ACTIVE
		}
		d.reserved = s.reservedFrom(auth.From(ctx), d.sharedHost)
		if err := change(d); err != nil {
			return nil, err
		}
		if err := d.limitedBy(auth.From(ctx)); err != nil {
			return nil, err
		}
		last = d
		edit, err := d.edit(resource)
		if err == nil {
			edit.Changes, edit.MoreChanges = s.audited(d)
		}
		return edit, err
	}
	if req.GetValidateOnly() {
		if err := s.store.DryRun(ctx, account, decide); err != nil {
			return outcome{}, notWritten(err, account, "")
		}
		return outcome{revision: last.state.Revision, draft: last, changed: last.state.Changed}, nil
	}
	id, err := requestID(ctx, req.GetRequestId(), req, "", cmp.Or(resource, topology.AccountName(account)))
	if err != nil {
		return outcome{}, err
	}
	result, err := s.store.Write(ctx, account, id, decide)
	if err != nil {
		return outcome{}, notWritten(err, account, id.ID)
	}
	out := outcome{revision: result.Revision, committed: true, changed: result.Changed}
	switch {
	case result.Replayed:
		out.at, err = s.kept(ctx, account, result)
		return out, unread(err, result.Revision)
	case !result.Noop:
		last.written(result.Revision)
	}
	out.draft = last
	return out, nil
}

// notWritten is the error of a write that did not happen, or whose outcome is unknown: then it says
// how to find out.
func notWritten(err error, account, request string) error {
	switch {
	case errors.Is(err, store.ErrDeleting):
		return deleting(account)
	case errors.Is(err, store.ErrUnknownOutcome):
		f := fail(
			kindOutcomeUnknown,
			"etcd was lost during the write%s, so it may or may not have happened: repeat it with request_id %s, which writes at most once",
			because(err),
			request,
		)
		f.facts = map[string]string{"requestId": request}
		f.cause = err
		return f
	case errors.Is(err, store.ErrUnavailable),
		errors.Is(err, store.ErrForbidden),
		errors.Is(err, store.ErrResourceExhausted):
		f := toFailure(err)
		f.text += "; nothing was written"
		return f
	}
	return err
}

// because is the reason that the store gives, as part of a sentence.
func because(err error) string {
	if lost, ok := errors.AsType[*store.UnavailableError](err); ok && lost.Reason != "" {
		return " (" + lost.Reason + ")"
	}
	return ""
}

// unread is the error of a write that an earlier request with the same id has done, but whose
// result cannot be read.
func unread(err error, revision int64) error {
	if err == nil {
		return nil
	}
	why := toFailure(err)
	if why.kind == kindNotFound {
		return err
	}
	f := fail(
		kindResultUnread,
		"the request was done before, at revision %d; its result cannot be read now: %s",
		revision,
		why.text,
	)
	f.facts = map[string]string{"revision": strconv.FormatInt(revision, 10)}
	f.cause = err
	return f
}

// kept is the revision to read the result of an earlier request at. A write that changed nothing
// answers with the account's last change, and etcd may have compacted the result away.
func (s *Service) kept(ctx context.Context, account string, result store.Result) (int64, error) {
	if result.Noop {
		return 0, nil
	}
	switch _, _, err := s.store.GetAt(ctx, accountKey(account), result.Revision); {
	case errors.Is(err, store.ErrCompacted):
		return 0, nil
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return 0, err
	}
	return result.Revision, nil
}

// sharedHostOf reads the record of the settings. Before there is one, the host is empty.
func sharedHostOf(settings topology.Record) (string, error) {
	if settings.Value == nil {
		return "", nil
	}
	m, err := settings.Decode()
	if err != nil {
		return "", fail(
			kindBrokenRecord,
			"the settings in etcd cannot be read: start a control plane with --shared-host and --replace-shared-host",
		)
	}
	return m.(*topologyv1.Settings).GetSharedHost(), nil
}

// readAt reads and decodes one resource as of a revision; 0 is the current one.
func readAt[M proto.Message](
	ctx context.Context,
	s *Service,
	key topology.Key,
	revision int64,
) (topology.Stored[M], int64, error) {
	record, revision, err := s.store.GetAt(ctx, key, revision)
	if errors.Is(err, store.ErrNotFound) {
		return topology.Stored[M]{}, 0, notFound(key.Name())
	}
	if err != nil {
		return topology.Stored[M]{}, 0, err
	}
	stored, err := decode[M](record)
	return stored, revision, err
}

func decode[M proto.Message](record topology.Record) (topology.Stored[M], error) {
	m, err := record.Decode()
	if err != nil {
		return topology.Stored[M]{}, brokenRecord(record.Key, err)
	}
	return topology.Stored[M]{
		Message:        m.(M),
		CreateRevision: record.CreateRevision,
		ModRevision:    record.ModRevision,
	}, nil
}

// present is a stored resource as admins see it. What has yet to be written has no uid and no etag.
func present[M proto.Message](key topology.Key, stored topology.Stored[M]) M {
	m := rules.Present(key, stored)
	if stored.ModRevision == 0 {
		r := m.ProtoReflect()
		for _, name := range []string{"uid", "etag"} {
			if f := r.Descriptor().Fields().ByTextName(name); f != nil {
				r.Clear(f)
			}
		}
	}
	return m
}
