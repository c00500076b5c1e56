package adminsvc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

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

// requestID is what the store remembers of a request. Of its content that is only a hash, since it may hold secrets.
func requestID(ctx context.Context, id string, req proto.Message, more string) (store.RequestID, error) {
	if id == "" {
		return store.RequestID{}, nil
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return store.RequestID{}, err
	}
	sum := sha256.Sum256(append(b, more...))
	method, _ := grpc.Method(ctx)
	return store.RequestID{ID: strings.ToLower(id), Method: method[strings.LastIndexByte(method, '/')+1:], Hash: hex.EncodeToString(sum[:])}, nil
}

// outcome is how a write ended.
type outcome struct {
	revision int64
	// at is the revision to read what was written at: the same, or 0, the current one, where nothing was written, perhaps
	// for longer than etcd keeps revisions.
	at int64
	// replayed says that an earlier request with the same id made the change.
	replayed bool
	// draft is the account as it would be, for requests that only check; else nil.
	draft *draft
}

// write changes an account. change works on a draft and may run several times; resource is the name of what it writes.
func (s *Service) write(ctx context.Context, req writeRequest, account, resource string, change func(*draft) error) (outcome, error) {
	shared, err := s.sharedHost(ctx, 0)
	if err != nil {
		return outcome{}, err
	}
	now := s.now()
	var last *draft
	decide := func(state *store.State) (*store.Edit, error) {
		d, err := newDraft(state, shared, now)
		if err != nil {
			return nil, err
		}
		if err := change(d); err != nil {
			return nil, err
		}
		last = d
		return d.edit(resource)
	}
	if req.GetValidateOnly() {
		if err := s.store.DryRun(ctx, account, decide); err != nil {
			return outcome{}, named(err, account)
		}
		return outcome{revision: last.state.Revision, draft: last}, nil
	}
	id, err := requestID(ctx, req.GetRequestId(), req, "")
	if err != nil {
		return outcome{}, err
	}
	result, err := s.store.Write(ctx, account, id, decide)
	if err != nil {
		return outcome{}, named(err, account)
	}
	at, err := s.kept(ctx, account, result)
	return outcome{revision: result.Revision, at: at, replayed: result.Replayed}, err
}

// named tells which account takes no writes.
func named(err error, account string) error {
	if errors.Is(err, store.ErrDeleting) {
		return deleting(account)
	}
	return err
}

// kept is the revision to read the result of a write at. A write that changed nothing answers with the account's last
// change, and a cluster of others may have compacted the first answer of a repeated request away.
func (s *Service) kept(ctx context.Context, account string, result store.Result) (int64, error) {
	if result.Noop {
		return 0, nil
	}
	if result.Replayed {
		switch _, _, err := s.store.GetAt(ctx, accountKey(account), result.Revision); {
		case errors.Is(err, store.ErrCompacted):
			return 0, nil
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return 0, err
		}
	}
	return result.Revision, nil
}

// sharedHost reads the settings as of a revision; 0 is the current one. Before they are set it is empty.
func (s *Service) sharedHost(ctx context.Context, revision int64) (string, error) {
	record, _, err := s.store.GetAt(ctx, topology.Key{Kind: topology.KindSettings}, revision)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	m, err := record.Decode()
	if err != nil {
		return "", err
	}
	return m.(*topologyv1.Settings).GetSharedHost(), nil
}

// readAt reads and decodes one resource as of a revision; 0 is the current one.
func readAt[M proto.Message](ctx context.Context, s *Service, key topology.Key, revision int64) (topology.Stored[M], int64, error) {
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
		return topology.Stored[M]{}, err
	}
	return topology.Stored[M]{Message: m.(M), CreateRevision: record.CreateRevision, ModRevision: record.ModRevision}, nil
}

// stateAt reads an account as it was at a revision.
func (s *Service) stateAt(ctx context.Context, account string, revision int64) (*topology.AccountState, error) {
	state := topology.NewAccountState(account, "")
	switch record, _, err := s.store.GetAt(ctx, accountKey(account), revision); {
	case err == nil:
		if err := state.Apply(record); err != nil {
			return nil, err
		}
	case !errors.Is(err, store.ErrNotFound):
		return nil, err
	}
	for _, kind := range []topology.Kind{topology.KindOrigins, topology.KindOriginSecrets, topology.KindURLEndpoints, topology.KindCustomDomains} {
		after := ""
		for {
			records, more, _, err := s.store.ListAt(ctx, kind, account, "", after, maxPageSize, revision)
			if err != nil {
				return nil, err
			}
			for _, record := range records {
				if err := state.Apply(record); err != nil {
					return nil, err
				}
				after = record.Key.ID
			}
			if !more {
				break
			}
		}
	}
	return state, nil
}

// present is a stored resource as admins see it. What has yet to be written has no uid and no etag.
func present[M proto.Message](key topology.Key, stored topology.Stored[M]) M {
	m := topology.Present(key, stored)
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
