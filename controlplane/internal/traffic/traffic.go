// Package traffic keeps what edges report of the last hour: how often clients asked for each
// account's files, and which files nobody had. It is in memory only, for a bounded number of
// accounts.
package traffic

import (
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/internal/frequent"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// MaxAccounts bounds the accounts that are kept; those that were reported last are. One takes 3
	// KiB, and up to 40 KiB with many missing files of long names.
	MaxAccounts = 10_000
	// Minutes is how far back counts go, the minute under way included.
	Minutes = 60
	// MaxMissing is how many missing files are listed of an account.
	MaxMissing = 20
	// sketchSize is how many missing files are kept in each half hour, sketchFor.
	sketchSize = 32
	sketchFor  = 30 * time.Minute
)

// Table is what was reported. Its methods may be called at the same time.
type Table struct {
	now   func() time.Time
	began time.Time

	mu       sync.Mutex
	accounts *lru.Cache[string, *account] // by uid
}

type account struct {
	minutes [Minutes]minute // by minute of the clock, modulo
	// missing counts the half hour under way, before is what it held for the one before.
	half            int64
	missing, before *frequent.Counter
}

type minute struct {
	at                                    int64 // minutes since 1970
	requests, hits, misses, errors, bytes int64
}

// New returns an empty table. now is the clock; nil is time.Now.
func New(now func() time.Time) *Table {
	if now == nil {
		now = time.Now
	}
	accounts, _ := lru.New[string, *account](MaxAccounts) // an error is one of a size that is not positive
	return &Table{now: now, began: now(), accounts: accounts}
}

// Add takes what an edge reports of an account. Counts of more than a minute go evenly to each
// moment that they cover.
func (t *Table) Add(r *edgev1.AccountTraffic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.accounts.Get(r.GetUid())
	if !ok {
		a = new(account)
		t.accounts.Add(strings.Clone(r.GetUid()), a)
	}
	now := t.now()
	covers := min(max(r.GetCovers().AsDuration(), time.Nanosecond), (Minutes-1)*time.Minute)
	a.spread(r.GetCounts(), now.Add(-covers), covers)
	if len(r.GetMissingFiles()) == 0 {
		return
	}
	a.turn(halfOf(now))
	for _, file := range r.GetMissingFiles() {
		a.missing.Add(file.GetUrlEndpoint()+file.GetPath(), file.GetRequests())
	}
}

// spread adds counts evenly to the time that begins at start.
func (a *account) spread(c *topologyv1.TrafficCounts, start time.Time, covers time.Duration) {
	for done := time.Duration(0); done < covers; {
		at := start.Add(done)
		next := min(at.Truncate(time.Minute).Add(time.Minute).Sub(start), covers)
		share := func(n int64) int64 { return upTo(n, next, covers) - upTo(n, done, covers) }
		m := a.minute(at.Unix() / 60)
		m.requests += share(c.GetRequests())
		m.hits += share(c.GetHits())
		m.misses += share(c.GetMisses())
		m.errors += share(c.GetErrors())
		m.bytes += share(c.GetBytes())
		done = next
	}
}

// upTo is how much of n belongs to the first part of a time.
func upTo(n int64, part, whole time.Duration) int64 {
	if part == whole {
		return n
	}
	return int64(float64(n) * (float64(part) / float64(whole)))
}

// minute returns the counts of a minute, which are those of an earlier one until now.
func (a *account) minute(at int64) *minute {
	m := &a.minutes[at%Minutes]
	if m.at != at {
		*m = minute{at: at}
	}
	return m
}

func halfOf(now time.Time) int64 { return now.Unix() / int64(sketchFor/time.Second) }

// turn begins a half hour.
func (a *account) turn(half int64) {
	if a.missing != nil && a.half == half {
		return
	}
	a.before = nil
	if a.half == half-1 {
		a.before = a.missing
	}
	a.half, a.missing = half, frequent.New(sketchSize)
}

// Of returns what is known of an account, by its uid: every minute, also those without a request.
func (t *Table) Of(uid string) *topologyv1.Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	last, half := now.Unix()/60, halfOf(now)
	begins := func(at time.Time) *timestamppb.Timestamp {
		if at.Before(t.began) {
			at = t.began
		}
		return timestamppb.New(at)
	}
	r := &topologyv1.Traffic{
		StartTime:        begins(time.Unix((last-Minutes+1)*60, 0)),
		MissingStartTime: begins(time.Unix((half-1)*int64(sketchFor/time.Second), 0)),
	}
	a, ok := t.accounts.Peek(uid)
	if !ok {
		a = new(account)
	}
	for at := last - Minutes + 1; at <= last; at++ {
		counts := new(topologyv1.TrafficCounts)
		if m := &a.minutes[at%Minutes]; m.at == at {
			counts = &topologyv1.TrafficCounts{
				Requests: m.requests, Hits: m.hits, Misses: m.misses, Errors: m.errors, Bytes: m.bytes,
			}
		}
		r.Minutes = append(r.Minutes, &topologyv1.Traffic_Minute{
			StartTime: timestamppb.New(time.Unix(at*60, 0)), Counts: counts,
		})
	}
	if a.missing != nil && half-a.half <= 1 {
		a.turn(half)
		all := frequent.New(2 * sketchSize)
		for _, counter := range []*frequent.Counter{a.missing, a.before} {
			if counter == nil {
				continue
			}
			for _, item := range counter.Top(sketchSize) {
				all.Add(item.Item, item.Count)
			}
		}
		r.MissingFiles = top(all)
	}
	return r
}

// top returns the files that were missed most.
func top(missing *frequent.Counter) (files []*topologyv1.MissingFile) {
	for _, item := range missing.Top(MaxMissing) {
		slash := strings.IndexByte(item.Item, '/')
		if slash < 0 {
			slash = len(item.Item)
		}
		files = append(files, &topologyv1.MissingFile{
			UrlEndpoint: item.Item[:slash], Path: item.Item[slash:], Requests: item.Count,
		})
	}
	return files
}

// Merge adds what other control planes know of an account to what one does. The sum counts from the
// time on from which all of them did.
func Merge(to *topologyv1.Traffic, others ...*topologyv1.Traffic) {
	index := make(map[int64]*topologyv1.TrafficCounts, Minutes)
	for _, m := range to.GetMinutes() {
		index[m.GetStartTime().GetSeconds()] = m.GetCounts()
	}
	missing := frequent.New((len(others) + 1) * MaxMissing)
	count := func(files []*topologyv1.MissingFile) {
		for _, f := range files {
			missing.Add(f.GetUrlEndpoint()+f.GetPath(), f.GetRequests())
		}
	}
	count(to.GetMissingFiles())
	for _, other := range others {
		to.StartTime = later(to.StartTime, other.GetStartTime())
		to.MissingStartTime = later(to.MissingStartTime, other.GetMissingStartTime())
		for _, m := range other.GetMinutes() {
			c, ok := index[m.GetStartTime().GetSeconds()]
			if !ok {
				continue // of a clock that differs
			}
			from := m.GetCounts()
			c.Requests += from.GetRequests()
			c.Hits += from.GetHits()
			c.Misses += from.GetMisses()
			c.Errors += from.GetErrors()
			c.Bytes += from.GetBytes()
		}
		count(other.GetMissingFiles())
	}
	to.MissingFiles = top(missing)
}

func later(a, b *timestamppb.Timestamp) *timestamppb.Timestamp {
	if b.AsTime().After(a.AsTime()) {
		return b
	}
	return a
}
