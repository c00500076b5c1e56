package adminsvc

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// DefaultMaxUpload is the most bytes that one uploaded file may have unless Config says otherwise.
const DefaultMaxUpload = 1 << 30

// What an account may hold unless its limits say otherwise.
const (
	defaultOrigins   = 10_000
	defaultEndpoints = 10_000
	defaultDomains   = 10_000
	defaultLibrary   = 1 << 40 // bytes
	defaultWalk      = 120 * time.Second
	defaultTimeout   = 120 * time.Second
	// An account's share of the places of an edge that has all of them: three quarters of 2,048
	// fills and of 20,000 requests (docs/limits.md). An edge that may open fewer files has fewer.
	shareOfFills    = 1_536
	shareOfRequests = 15_000
)

// spoolFor bounds what uploads under way take of the disk: so many of the largest.
const spoolFor = 4

// overQuota says that a write would pass a limit of its account, and names that by its field, or by
// the operator's flag.
func overQuota(account, field string, limit, wanted int64, unit, remedy string) *failure {
	name := topology.AccountName(account)
	f := fail(kindQuota, "%s: %s may be at most %d%s, and this would make it %d: %s", name, fieldpath.JSON(field),
		limit, unit, wanted, remedy)
	f.resource = name
	f.facts = map[string]string{"field": field, "limit": strconv.FormatInt(limit, 10)}
	return f
}

// limitedBy returns an error if the draft changes a field that only callers who manage all accounts
// may set, and the caller does not.
func (d *draft) limitedBy(c *auth.Caller) error {
	before, after := d.account.before("").Message, d.account.after("").Message
	field := "limits"
	switch {
	case c.May(adminv1.Rule_ACCOUNTS):
		return nil
	case !slices.Equal(before.GetPools(), after.GetPools()):
		field = "pools"
	case proto.Equal(before.GetLimits(), after.GetLimits()):
		return nil
	}
	f := denied("%s of %s: the role %s may not change them", field, topology.AccountName(d.id), c.Token.GetRole())
	f.resource = topology.AccountName(d.id)
	return f
}

// quota returns an error if the draft adds to what is over the account's limits by then. What is
// there may stay and change.
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
			return overQuota(d.id, one.field, int64(limit), int64(after), "",
				"delete some, or raise the account's limit")
		}
	}
	return d.timeQuota(limits)
}

// timeQuota does the same for times: what the draft changes may not have longer ones than the
// account may, unless it had them.
func (d *draft) timeQuota(limits *topologyv1.AccountLimits) error {
	check := func(resource, what, field string, limit, before, after time.Duration) error {
		if after <= limit || after <= before {
			return nil
		}
		f := fail(kindQuota, "%s: %s of %s is longer than %s of the account, %s: shorten it, or raise the account's limit", resource,
			fieldpath.JSON(what), after, fieldpath.JSON(field), limit)
		f.resource = resource
		f.facts = map[string]string{"field": field, "limit": limit.String()}
		return f
	}
	walk := durationOf(limits.GetWalkDeadline(), defaultWalk)
	for id, stored := range d.endpoints.next {
		was := d.endpoints.before(id).Message
		if err := check(
			topology.EndpointName(d.id, id), "walk_deadline", "limits.walk_deadline", walk,
			was.GetWalkDeadline().AsDuration(), stored.Message.GetWalkDeadline().AsDuration(),
		); err != nil {
			return err
		}
	}
	longest := durationOf(limits.GetOriginTimeout(), defaultTimeout)
	for id, stored := range d.origins.next {
		was, is := d.origins.before(id).Message.GetTimeouts(), stored.Message.GetTimeouts()
		for _, one := range []struct {
			what          string
			before, after *durationpb.Duration
		}{
			{"timeouts.connect", was.GetConnect(), is.GetConnect()},
			{"timeouts.first_byte", was.GetFirstByte(), is.GetFirstByte()},
			{"timeouts.idle", was.GetIdle(), is.GetIdle()},
		} {
			if err := check(
				topology.OriginName(d.id, id), one.what, "limits.origin_timeout", longest, one.before.AsDuration(),
				one.after.AsDuration(),
			); err != nil {
				return err
			}
		}
	}
	return nil
}

func durationOf(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}

// effectiveLimits are the limits that hold for an account, defaults included.
func (s *Service) effectiveLimits(of *topologyv1.AccountLimits) *topologyv1.AccountLimits {
	limits := proto.CloneOf(orEmpty(of))
	or := func(limit *int32, otherwise int32) *int32 {
		if limit == nil {
			return &otherwise
		}
		return limit
	}
	limits.Origins, limits.UrlEndpoints = or(limits.Origins, defaultOrigins), or(limits.UrlEndpoints, defaultEndpoints)
	limits.CustomDomains = or(limits.CustomDomains, defaultDomains)
	share := func(limit *int32, share int32) *int32 { return proto.Int32(min(share, *or(limit, share))) }
	limits.Fills, limits.Requests = share(limits.Fills, shareOfFills), share(limits.Requests, shareOfRequests)
	limits.LibraryBytes = proto.Int64(libraryBytes(limits))
	upload, _, _ := s.uploadLimit(limits)
	limits.UploadBytes = &upload
	limits.WalkDeadline = durationpb.New(durationOf(limits.GetWalkDeadline(), defaultWalk))
	limits.OriginTimeout = durationpb.New(durationOf(limits.GetOriginTimeout(), defaultTimeout))
	return limits
}

// uploadLimit is how many bytes a file of an account may have, and the field or flag that says so.
func (s *Service) uploadLimit(limits *topologyv1.AccountLimits) (limit int64, field, remedy string) {
	if limits != nil && limits.UploadBytes != nil && *limits.UploadBytes < s.maxUpload {
		return *limits.UploadBytes, "limits.upload_bytes", "raise the account's limit"
	}
	return s.maxUpload, "--max-upload", "raise that of the control plane"
}

// libraryBytes is how many bytes an account's library may have.
func libraryBytes(limits *topologyv1.AccountLimits) int64 {
	if limits == nil || limits.LibraryBytes == nil {
		return defaultLibrary
	}
	return *limits.LibraryBytes
}

// roomIn returns an error if a file would take its account's library over its limit. room is how
// many bytes are left then.
func roomIn(ctx context.Context, state *store.State, key topology.Key, size int64) (room int64, err error) {
	record, err := state.Get(ctx, accountKey(key.Account))
	if err != nil {
		return 0, err
	}
	account, err := decode[*topologyv1.Account](record)
	if err != nil {
		return 0, err
	}
	total, err := state.MediaBytes(ctx)
	if err != nil {
		return 0, err
	}
	was := int64(0)
	switch record, err := state.Get(ctx, key); {
	case err == nil:
		if stored, err := decode[*topologyv1.MediaFile](record); err == nil {
			was = stored.Message.GetSizeBytes()
		}
	case !errors.Is(err, store.ErrNotFound):
		return 0, err
	}
	total += size - was
	limit := libraryBytes(account.Message.GetLimits())
	if total > limit && size > was {
		return 0,
			overQuota(key.Account, "limits.library_bytes", limit, total, " bytes",
				"delete files, or raise the account's limit")
	}
	return limit - total, nil
}

// roomFor checks a file against the library's limit before its bytes are placed, as of now.
func (s *Service) roomFor(ctx context.Context, key topology.Key, size int64) (room int64, err error) {
	state, err := s.store.AccountState(ctx, key.Account)
	if err != nil {
		return 0, err
	}
	return roomIn(ctx, state, key, size)
}

// spool counts the bytes of uploads under way. An account has a share of them: nothing ends an
// upload that is slow.
type spool struct {
	limit int64

	mu    sync.Mutex
	taken int64
	of    map[string]int64 // of taken, by account; made by New
}

// shareOfSpool is how many of the largest files one account may have under way.
const shareOfSpool = spoolFor - 1

// take counts bytes in, which give gives back either way.
func (s *spool) take(account string, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken += n
	s.of[account] += n
	const later = "%s take all of the %d bytes that there are for them: try again later"
	switch share := s.limit / spoolFor * shareOfSpool; {
	case s.taken > s.limit:
		return fail(kindTooManyRequests, later, "uploads under way", s.limit)
	case s.of[account] > share:
		return fail(kindTooManyRequests, later, "uploads of "+topology.AccountName(account)+" under way", share)
	}
	return nil
}

func (s *spool) give(account string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken -= n
	if s.of[account] -= n; s.of[account] == 0 {
		delete(s.of, account)
	}
}

// turns let the uploads to one account go on one after the other, from the look at its library's
// limit to the record: of several that fit one by one and not together, none is placed for nothing.
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
