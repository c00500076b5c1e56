package adminsvc

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// DefaultMaxUpload is the most bytes that one uploaded file may have unless Config says otherwise.
const DefaultMaxUpload = 1 << 30

// What an account may hold unless its limits say otherwise.
const (
	defaultOrigins   = 10_000
	defaultEndpoints = 10_000
	defaultDomains   = 10_000
)

// spoolFor bounds what uploads under way take of the disk: so many of the largest.
const spoolFor = 4

// overQuota says that a write would pass a limit of its account, and names that by its field, or by the operator's flag.
func overQuota(account, field string, limit, wanted int64, unit, remedy string) *failure {
	name := topology.AccountName(account)
	f := fail(kindQuota, "%s: %s may be at most %d%s, and this would make it %d: %s", name, field, limit, unit, wanted, remedy)
	f.resource = name
	f.facts = map[string]string{"field": field, "limit": strconv.FormatInt(limit, 10)}
	return f
}

// quota returns an error if the draft adds to what is over the account's limits by then. What is there may stay and change.
func (d *draft) quota() error {
	limits := d.account.after("").Message.GetLimits()
	if limits == nil {
		limits = new(topologyv1.AccountLimits)
	}
	for _, one := range []struct {
		field     string
		limit     *int32
		otherwise int
		counts    func() (before, after int)
	}{
		{"limits.origins", limits.Origins, defaultOrigins, d.origins.counts},
		{"limits.url_endpoints", limits.UrlEndpoints, defaultEndpoints, d.endpoints.counts},
		{"limits.custom_domains", limits.CustomDomains, defaultDomains, d.domains.counts},
	} {
		limit := one.otherwise
		if one.limit != nil {
			limit = int(*one.limit)
		}
		if before, after := one.counts(); after > before && after > limit {
			return overQuota(d.id, one.field, int64(limit), int64(after), "", "delete some, or raise the account's limit")
		}
	}
	return nil
}

// uploadLimit is how many bytes a file of an account may have, and the field or flag that says so.
func (s *Service) uploadLimit(limits *topologyv1.AccountLimits) (limit int64, field, remedy string) {
	if limits != nil && limits.UploadBytes != nil && *limits.UploadBytes < s.maxUpload {
		return *limits.UploadBytes, "limits.upload_bytes", "raise the account's limit"
	}
	return s.maxUpload, "--max-upload", "raise that of the control plane"
}

// lister lists media files of an account.
type lister func(after string, limit int) (records []topology.Record, more bool, err error)

// libraryQuota returns an error if a file would take its account's library over its limit.
func libraryQuota(account *topologyv1.Account, key topology.Key, size int64, list lister) error {
	limits := account.GetLimits()
	if limits == nil || limits.LibraryBytes == nil {
		return nil
	}
	total, was, after := size, int64(0), ""
	for {
		records, more, err := list(after, maxPageSize)
		if err != nil {
			return err
		}
		for _, record := range records {
			after = record.Key.ID
			stored, err := decode[*topologyv1.MediaFile](record)
			switch {
			case err != nil: // its size is not known
			case after == key.ID:
				was = stored.Message.GetSizeBytes()
			default:
				total += stored.Message.GetSizeBytes()
			}
		}
		if !more {
			break
		}
	}
	if total > *limits.LibraryBytes && size > was {
		return overQuota(key.Account, "limits.library_bytes", *limits.LibraryBytes, total, " bytes", "delete files, or raise the account's limit")
	}
	return nil
}

// roomFor checks a file against the library's limit before its bytes are placed, as of now.
func (s *Service) roomFor(ctx context.Context, account *topologyv1.Account, key topology.Key, size int64) error {
	return libraryQuota(account, key, size, func(after string, limit int) ([]topology.Record, bool, error) {
		records, more, _, err := s.store.ListAt(ctx, topology.KindMediaFiles, key.Account, "", after, limit, 0)
		return records, more, err
	})
}

// roomIn is roomFor as a write sees it.
func roomIn(ctx context.Context, state *store.State, key topology.Key, size int64) error {
	record, err := state.Get(ctx, accountKey(key.Account))
	if err != nil {
		return err
	}
	account, err := decode[*topologyv1.Account](record)
	if err != nil {
		return err
	}
	return libraryQuota(account.Message, key, size, func(after string, limit int) ([]topology.Record, bool, error) {
		return state.List(ctx, topology.KindMediaFiles, "", after, limit)
	})
}

// spool counts the bytes of uploads under way.
type spool struct {
	limit int64
	taken atomic.Int64
}

// take counts bytes in, which give gives back either way.
func (s *spool) take(n int64) error {
	if s.taken.Add(n) > s.limit {
		return fail(kindTooManyRequests, "uploads under way take all of the %d bytes that there are for them: try again later", s.limit)
	}
	return nil
}

func (s *spool) give(n int64) { s.taken.Add(-n) }

// turns let the uploads to one account go on one after the other, from the look at its library's limit to the record: of
// several that fit one by one and not together, none is placed for nothing.
type turns struct {
	mu sync.Mutex
	of map[string]*turn
}

type turn struct {
	taken chan struct{} // full while it is somebody's turn
	users int           // those whose turn it is and who wait
}

// take waits for an account's turn, which ends with done.
func (t *turns) take(ctx context.Context, account string) (done func(), err error) {
	t.mu.Lock()
	one := t.of[account]
	if one == nil {
		one = &turn{taken: make(chan struct{}, 1)}
		if t.of == nil {
			t.of = make(map[string]*turn)
		}
		t.of[account] = one
	}
	one.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(t.of, account)
		}
	}
	select {
	case one.taken <- struct{}{}:
		return func() { <-one.taken; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
