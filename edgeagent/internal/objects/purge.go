package objects

import (
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
)

// Verdict is what the purges say about a stored reply, a memory or a running fill.
type Verdict uint8

const (
	None Verdict = iota // no purge covers it
	Soft                // must be revalidated before its next use
	Hard                // must never be used again
)

func (v Verdict) String() string {
	switch v {
	case Soft:
		return "soft"
	case Hard:
		return "hard"
	}
	return "none"
}

// Purge covers, of one account, what its one scope addresses and what has an asof below Revision.
type Purge struct {
	Account  string // uid
	Revision int64
	Hard     bool

	// Exactly one of these is set.
	URLs       []URLScope
	Prefix     *PrefixScope
	Tag        string
	Endpoint   string // uid
	Everything bool
}

// URLScope is one file of an endpoint, however its path and query are spelled: with one kept query (which may be empty), or
// with any.
type URLScope struct {
	Endpoint string // uid
	Path     string // canonical
	Query    string // kept query without "?"
	AnyQuery bool   // then Query does not matter
}

// PrefixScope is a folder and all below it, in whole segments: /img (or /img/) covers /img, /img/ and /img/a, not /img2.
type PrefixScope struct {
	Endpoint string // uid, "" for every endpoint of the account
	Path     string
}

var errPurgeScope = errors.New("purge must have exactly one scope")

// purgeIndex answers, by a few hash lookups, which purges cover a scope. Since a purge only ever says "what is older
// than P", purges of equal scope merge into the highest revision: any order and any repetition gives the same answers.
type purgeIndex struct {
	mu       sync.RWMutex
	accounts map[string]*accountPurges
	// hard counts the calls that may have made stored objects unusable, so that the sweep knows when it has work.
	hard atomic.Int64
}

type accountPurges struct {
	whole     revisions // Everything, and the floors
	endpoints map[string]revisions
	tags      map[string]revisions
	urls      map[URLScope]revisions
	prefixes  map[string]*prefixSet // by endpoint uid, "" for every endpoint
	forgotten int64                 // entries up to this revision may go
}

// forgetAccount as the revision to forget says that the account itself is gone.
const forgetAccount = math.MaxInt64

// revisions are the highest purges of each kind at one scope.
type revisions struct{ soft, hard int64 }

func (r revisions) merge(o revisions) revisions {
	return revisions{max(r.soft, o.soft), max(r.hard, o.hard)}
}

func (r revisions) covers(asof int64) Verdict {
	switch {
	case asof < r.hard:
		return Hard
	case asof < r.soft:
		return Soft
	}
	return None
}

// prefixSet holds paths without trailing slash; the root is "".
type prefixSet struct {
	byPath  map[string]revisions
	longest int // length of the longest path ever held, to stop probing deep paths early
}

func add[K comparable](m *map[K]revisions, k K, r revisions) {
	if *m == nil {
		*m = make(map[K]revisions)
	}
	(*m)[k] = (*m)[k].merge(r)
}

func (x *purgeIndex) account(uid string) *accountPurges {
	a := x.accounts[uid]
	if a == nil {
		if x.accounts == nil {
			x.accounts = make(map[string]*accountPurges)
		}
		a = &accountPurges{}
		x.accounts[uid] = a
	}
	return a
}

func (p *Purge) scopes() int {
	n := 0
	for _, set := range []bool{len(p.URLs) > 0, p.Prefix != nil, p.Tag != "", p.Endpoint != "", p.Everything} {
		if set {
			n++
		}
	}
	return n
}

func (x *purgeIndex) apply(p Purge) error {
	if p.scopes() != 1 {
		return errPurgeScope
	}
	r := revisions{soft: p.Revision}
	if p.Hard {
		r = revisions{hard: p.Revision}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	a := x.account(p.Account)
	switch {
	case p.Everything:
		a.whole = a.whole.merge(r)
	case p.Endpoint != "":
		add(&a.endpoints, p.Endpoint, r)
	case p.Tag != "":
		add(&a.tags, p.Tag, r)
	case p.Prefix != nil:
		a.addPrefix(*p.Prefix, r)
	}
	for _, u := range p.URLs {
		u.Path, u.Query = spelledOut(u.Path), queryOut(u.Query)
		if u.AnyQuery {
			u.Query = ""
		}
		add(&a.urls, u, r)
	}
	if p.Hard {
		x.hard.Add(1)
	}
	return nil
}

func (a *accountPurges) addPrefix(p PrefixScope, r revisions) {
	set := a.prefixes[p.Endpoint]
	if set == nil {
		if a.prefixes == nil {
			a.prefixes = make(map[string]*prefixSet)
		}
		set = &prefixSet{}
		a.prefixes[p.Endpoint] = set
	}
	path := strings.TrimRight(spelledOut(p.Path), "/")
	add(&set.byPath, path, r)
	set.longest = max(set.longest, len(path))
}

func (x *purgeIndex) floor(account string, softBefore, hardBefore int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	a := x.account(account)
	before := a.whole.hard
	a.whole = a.whole.merge(revisions{softBefore, hardBefore})
	if a.whole.hard > before {
		x.hard.Add(1)
	}
}

func (x *purgeIndex) forget(account string, upTo int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if a := x.accounts[account]; a != nil {
		a.forgotten = max(a.forgotten, upTo)
	}
}

func (x *purgeIndex) forgetAll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.accounts = nil
}

func (x *purgeIndex) check(sc *Scope, asof int64) Verdict {
	x.mu.RLock()
	defer x.mu.RUnlock()
	a := x.accounts[sc.Account]
	if a == nil {
		return None
	}
	r := a.whole
	if len(a.endpoints) > 0 {
		r = r.merge(a.endpoints[sc.Endpoint])
	}
	if len(a.tags) > 0 {
		for _, t := range sc.Tags {
			r = r.merge(a.tags[t])
		}
	}
	if len(a.urls)+len(a.prefixes) == 0 {
		return r.covers(asof)
	}
	path := spelledOut(sc.Path)
	if len(a.urls) > 0 {
		r = r.merge(a.urls[URLScope{Endpoint: sc.Endpoint, Path: path, Query: queryOut(sc.Query)}])
		r = r.merge(a.urls[URLScope{Endpoint: sc.Endpoint, Path: path, AnyQuery: true}])
	}
	if len(a.prefixes) > 0 {
		r = r.merge(a.prefixes[""].at(path)).merge(a.prefixes[sc.Endpoint].at(path))
	}
	return r.covers(asof)
}

// spelledOut is the form in which purges compare paths. Spellings that some origin takes for one file have one form: escaped or
// not, "%2F" or "/", "//" or "/". Others may share a form too, since a purge that covers too much costs a revalidation, and one
// that covers too little leaves what its sender believes gone.
func spelledOut(path string) string {
	if strings.IndexByte(path, '%') < 0 && !strings.Contains(path, "//") {
		return path
	}
	b := unescape(path)
	n := 0
	for i, c := range b {
		if c != '/' || i == 0 || b[i-1] != '/' {
			b[n] = c
			n++
		}
	}
	return string(b[:n])
}

// queryOut does the same for queries, in which forms write a space as "+".
func queryOut(query string) string {
	if !strings.ContainsAny(query, "%+") {
		return query
	}
	b := unescape(query)
	for i, c := range b {
		if c == '+' {
			b[i] = ' '
		}
	}
	return string(b)
}

// unescape decodes once what is escaped, and leaves an escape that is broken.
func unescape(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			var c [1]byte
			if _, err := hex.Decode(c[:], []byte(s[i+1:i+3])); err == nil {
				b = append(b, c[0])
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return b
}

// at merges what covers path: the set's entries that end where path ends or has a slash.
func (p *prefixSet) at(path string) revisions {
	if p == nil {
		return revisions{}
	}
	r := p.byPath[""]
	for i := 1; i < len(path) && i <= p.longest; i++ {
		if path[i] == '/' {
			r = r.merge(p.byPath[path[:i]])
		}
	}
	if len(path) <= p.longest {
		r = r.merge(p.byPath[path])
	}
	return r
}

// tidy frees entries that were forgotten or say no more than the account's floor.
func (x *purgeIndex) tidy() {
	x.mu.RLock()
	uids := make([]string, 0, len(x.accounts))
	for uid := range x.accounts {
		uids = append(uids, uid)
	}
	x.mu.RUnlock()
	for _, uid := range uids {
		x.tidyAccount(uid)
	}
}

// tidyAccount holds the lock for one account at a time: its records are bounded (10,000 by the semantics), the number
// of accounts is not.
func (x *purgeIndex) tidyAccount(uid string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	a := x.accounts[uid]
	if a == nil {
		return
	}
	idle := func(r revisions) bool {
		return (r.soft <= a.whole.soft || r.soft <= a.whole.hard || r.soft <= a.forgotten) &&
			(r.hard <= a.whole.hard || r.hard <= a.forgotten)
	}
	prune(&a.endpoints, idle)
	prune(&a.tags, idle)
	prune(&a.urls, idle)
	for ep, set := range a.prefixes {
		prune(&set.byPath, idle)
		if len(set.byPath) == 0 {
			delete(a.prefixes, ep)
		}
	}
	if a.whole.soft <= a.forgotten && a.whole.hard <= a.forgotten &&
		len(a.endpoints)+len(a.tags)+len(a.urls)+len(a.prefixes) == 0 && a.forgotten == forgetAccount {
		delete(x.accounts, uid)
	}
}

// prune gives the map itself back once it is empty, since a Go map never shrinks.
func prune[K comparable](m *map[K]revisions, idle func(revisions) bool) {
	for k, r := range *m {
		if idle(r) {
			delete(*m, k)
		}
	}
	if len(*m) == 0 {
		*m = nil
	}
}

func (x *purgeIndex) size() (entries int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, a := range x.accounts {
		entries += len(a.endpoints) + len(a.tags) + len(a.urls)
		for _, set := range a.prefixes {
			entries += len(set.byPath)
		}
	}
	return entries
}
