// Package traffic counts what clients ask of each account, for the control plane to show.
//
// [Table.Report] returns and removes what was counted. Memory is bounded by the number of accounts,
// and for missing files by [maxSketches] times [sketchSize] paths.
package traffic

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	"github.com/edgewalk/edgewalk/internal/frequent"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// maxAccounts, maxMissing and maxPath are the bounds of Report.traffic and MissingFile.
	maxAccounts = 200
	maxMissing  = 10
	maxPath     = 512
	// maxSketches bounds the accounts whose missing files are counted between two reports, and
	// sketchSize the files of each.
	maxSketches = 1000
	sketchSize  = 32
)

// Table is the counts of all accounts. Its methods may be called at the same time.
type Table struct {
	sketches atomic.Int64

	mu       sync.RWMutex
	accounts map[string]*Account // by uid
}

// Account is the counts of one account. Its methods may be called at the same time.
type Account struct {
	table   *Table
	id, uid string
	since   time.Time // of the counts; guarded by Table.mu

	hits, misses, others, errors, bytes atomic.Int64

	mu      sync.Mutex
	missing *frequent.Counter // by endpoint and path; nil for none
	gone    bool
}

// New returns an empty table.
func New() *Table { return &Table{accounts: make(map[string]*Account)} }

// Of returns the counts of an account.
func (t *Table) Of(id, uid string) *Account {
	t.mu.RLock()
	found := t.accounts[uid]
	t.mu.RUnlock()
	if found != nil {
		return found
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.accounts[uid] == nil {
		a := &Account{table: t, id: strings.Clone(id), uid: strings.Clone(uid), since: time.Now()}
		t.accounts[a.uid] = a
	}
	return t.accounts[uid]
}

// Count counts a request by its outcome, the status and the bytes of body that were sent. Outcomes
// that are none of the cache's count as neither hit nor miss.
func (a *Account) Count(o httpcache.Outcome, status int, bytes int64) {
	switch o {
	case httpcache.Hit, httpcache.Stale, httpcache.Revalidated, httpcache.Coalesced:
		a.hits.Add(1)
	case httpcache.Miss, httpcache.Passed:
		a.misses.Add(1)
	default:
		a.others.Add(1)
	}
	if status >= 500 {
		a.errors.Add(1)
	}
	if bytes > 0 {
		a.bytes.Add(bytes)
	}
}

// Missing counts a request for a file that nobody has, by its path within an endpoint. It keeps
// neither string.
func (a *Account) Missing(endpoint, path string) {
	// What follows an escaped `?` may be the query of a URL within the path, and hold a secret.
	if len(path) > maxPath || strings.Contains(path, "%3F") {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.missing == nil {
		if a.gone {
			return
		}
		if a.table.sketches.Add(1) > maxSketches {
			a.table.sketches.Add(-1)
			return
		}
		a.missing = frequent.New(sketchSize)
	}
	a.missing.Add(endpoint+path, 1) // no id has a "/", with which a path begins
}

// sketch returns and removes the counts of missing files, nil for none.
func (a *Account) sketch(gone bool) *frequent.Counter {
	a.mu.Lock()
	defer a.mu.Unlock()
	missing := a.missing
	a.missing, a.gone = nil, gone
	if missing != nil {
		a.table.sketches.Add(-1)
	}
	return missing
}

// take returns and removes the counts. The caller holds the table's mu.
func (a *Account) take(now time.Time) *edgev1.AccountTraffic {
	c := &topologyv1.TrafficCounts{
		Hits: a.hits.Swap(0), Misses: a.misses.Swap(0), Errors: a.errors.Swap(0), Bytes: a.bytes.Swap(0),
	}
	c.Requests = c.Hits + c.Misses + a.others.Swap(0)
	r := &edgev1.AccountTraffic{Account: a.id, Uid: a.uid, Covers: durationpb.New(now.Sub(a.since)), Counts: c}
	a.since = now
	missing := a.sketch(false)
	if missing == nil {
		return r
	}
	for _, item := range missing.Top(maxMissing) {
		slash := strings.IndexByte(item.Item, '/')
		if slash < 0 {
			slash = len(item.Item) // the endpoint itself
		}
		r.MissingFiles = append(r.MissingFiles, &topologyv1.MissingFile{
			UrlEndpoint: item.Item[:slash], Path: item.Item[slash:], Requests: item.Count,
		})
	}
	return r
}

// Report returns and removes the counts of the accounts that were asked for most, as far as they
// take no more than room bytes in a report. Those of the others stay for the next one. Accounts
// that no longer exist are dropped.
func (t *Table) Report(room int, exists func(id, uid string) bool) (report []*edgev1.AccountTraffic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	type asked struct {
		*Account
		requests int64
	}
	var all []asked
	for uid, a := range t.accounts {
		if !exists(a.id, uid) {
			a.sketch(true)
			delete(t.accounts, uid)
			continue
		}
		if n := a.hits.Load() + a.misses.Load() + a.others.Load(); n > 0 {
			all = append(all, asked{a, n})
		} else {
			a.since = now
		}
	}
	slices.SortFunc(all, func(a, b asked) int {
		return cmp.Or(cmp.Compare(b.requests, a.requests), strings.Compare(a.uid, b.uid))
	})
	for _, a := range all[:min(len(all), maxAccounts)] {
		if room < maxSize {
			break
		}
		r := a.take(now)
		room -= proto.Size(r) + fieldSize
		report = append(report, r)
	}
	return report
}

const (
	// maxSize is what the traffic of one account takes at most: its names, its numbers, and files.
	maxSize = 400 + maxMissing*(maxPath+130)
	// fieldSize is what a message within another one takes besides itself.
	fieldSize = 6
)
