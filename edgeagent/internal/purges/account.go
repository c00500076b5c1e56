package purges

import (
	"math"
	"strings"
	"unsafe"

	"github.com/edgewalk/edgewalk/internal/persistent"
)

// revisions are those of the newest purge of each kind at one scope. A purge covers everything
// older than itself, so the newest one stands for all before it at the same scope.
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

// account is what an account's purges cover. It never changes.
type account struct {
	uid       string
	whole     revisions             // of purges of everything, and of floors
	entries   persistent.Map[entry] // of all other scopes
	kinds     [prefixScope + 1]bool // of the entries there ever were
	longest   int                   // the longest prefix so far, so that deeper paths are not looked up in vain
	forgotten int64                 // entries up to this revision may go
}

// entry holds the purges at one scope.
type entry struct {
	key string // see scopeKey
	revisions
}

// The kinds of scopes that have entries.
const (
	endpointScope = iota
	tagScope
	urlScope      // with one query
	anyQueryScope // with any
	prefixScope
)

// scopeKey appends the key of a scope's entry. NUL is in no part but tags, which come alone.
func scopeKey(b []byte, kind byte, parts ...string) []byte {
	b = append(b, kind)
	for _, part := range parts {
		b = append(b, part...)
		b = append(b, 0)
	}
	return b
}

// forgetAccount is the revision to forget up to when the account itself is gone.
const forgetAccount = math.MaxInt64

func newAccount(uid string) account {
	return account{uid: uid, entries: persistent.New(func(e entry) string { return e.key })}
}

// add adds a purge at one scope. It changes a in place, which is safe because nobody else has the
// entries that batch makes.
func (a *account) add(batch *persistent.Batch, r revisions, kind byte, parts ...string) {
	key := string(scopeKey(nil, kind, parts...))
	old, _ := a.entries.Get(key)
	a.entries.Put(batch, entry{key, old.merge(r)})
	a.kinds[kind] = true
}

// with returns the account with one more purge.
func (a account) with(p *Purge) account {
	r := revisions{soft: p.Revision}
	if p.Hard {
		r = revisions{hard: p.Revision}
	}
	batch := new(persistent.Batch)
	switch {
	case p.Everything:
		a.whole = a.whole.merge(r)
	case p.Endpoint != "":
		a.add(batch, r, endpointScope, p.Endpoint)
	case p.Tag != "":
		a.add(batch, r, tagScope, p.Tag)
	case p.Prefix != nil:
		path := strings.TrimRight(plainPath(p.Prefix.Path), "/")
		a.add(batch, r, prefixScope, p.Prefix.Endpoint, path)
		a.longest = max(a.longest, len(path))
	}
	for _, u := range p.URLs {
		if u.AnyQuery {
			a.add(batch, r, anyQueryScope, u.Endpoint, plainPath(u.Path))
		} else {
			a.add(batch, r, urlScope, u.Endpoint, plainPath(u.Path), plainQuery(u.Query))
		}
	}
	return a
}

func (a *account) check(sc *Scope, asof int64) Verdict {
	if a.entries.Len() == 0 {
		return a.whole.covers(asof)
	}
	r := a.whole
	var stack [256]byte // holds one key after the other
	b := stack[:0]
	if a.kinds[endpointScope] {
		b = scopeKey(b[:0], endpointScope, sc.Endpoint)
		r = r.merge(a.at(b))
	}
	if a.kinds[tagScope] {
		for _, tag := range sc.Tags {
			b = scopeKey(b[:0], tagScope, tag)
			r = r.merge(a.at(b))
		}
	}
	if !a.kinds[urlScope] && !a.kinds[anyQueryScope] && !a.kinds[prefixScope] {
		return r.covers(asof)
	}
	path := plainPath(sc.Path)
	if a.kinds[urlScope] {
		b = scopeKey(b[:0], urlScope, sc.Endpoint, path, plainQuery(sc.Query))
		r = r.merge(a.at(b))
	}
	if a.kinds[anyQueryScope] {
		b = scopeKey(b[:0], anyQueryScope, sc.Endpoint, path)
		r = r.merge(a.at(b))
	}
	if a.kinds[prefixScope] {
		for _, endpoint := range [...]string{"", sc.Endpoint} {
			b = scopeKey(b[:0], prefixScope, endpoint, path)
			r = r.merge(a.above(b, len(path)))
		}
	}
	return r.covers(asof)
}

// at returns the purges at the scope of a key.
func (a *account) at(key []byte) revisions {
	e, _ := a.entries.Get(unsafe.String(unsafe.SliceData(key), len(key))) // Get keeps no part of the key
	return e.revisions
}

// above merges the revisions of the prefixes that cover a path of n bytes, the last part of key: of
// those that end where the path ends or has a slash.
func (a *account) above(key []byte, n int) (r revisions) {
	start := len(key) - n - 1
	for i := range min(n, a.longest) + 1 {
		end := start + i
		if i > 0 && i < n && key[end] != '/' {
			continue
		}
		next := key[end]
		key[end] = 0
		r = r.merge(a.at(key[:end+1]))
		key[end] = next
	}
	return r
}

// tidy returns the account without entries that were forgotten or say no more than the floor.
func (a account) tidy() account {
	batch, now := new(persistent.Batch), a.entries
	for e := range a.entries.All() {
		if (e.soft <= a.whole.soft || e.soft <= a.whole.hard || e.soft <= a.forgotten) &&
			(e.hard <= a.whole.hard || e.hard <= a.forgotten) {
			now.Drop(batch, e.key)
		}
	}
	a.entries = now
	if now.Len() == 0 {
		a.kinds, a.longest = [prefixScope + 1]bool{}, 0
	}
	return a
}

// gone reports whether nothing of the account need be kept.
func (a *account) gone() bool {
	return a.forgotten == forgetAccount && a.whole.soft <= a.forgotten && a.whole.hard <= a.forgotten &&
		a.entries.Len() == 0
}
