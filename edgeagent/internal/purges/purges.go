// Package purges knows which purges cover a stored reply, a memory of what nobody has, or a walk
// under way.
//
// It owns that question alone: nobody else asks a purge anything. What is stored, and what becomes
// of it, is the business of the caches. The table lives in memory only: the agent applies its purge
// records again at boot before it serves.
//
// What always holds: from the return of [Table.Apply] on no answer overlooks the purge; applying
// purges again, or in any other order, changes no answer; a reader never waits for a writer.
package purges

import (
	"errors"
	"fmt"
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

// MaxTags is how many tags of one scope count. Each costs a look-up per question once the account
// has tag purges.
const MaxTags = 64

// Scope is what a purge can address.
type Scope struct {
	Account  string   // uid
	Endpoint string   // uid
	Path     string   // canonical path of the file, begins with "/"
	Query    string   // kept query without "?"
	Tags     []string // at most [MaxTags]
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

// URLScope is one file of an endpoint, however its path and query are spelled: with one kept query
// (which may be empty), or with any.
type URLScope struct {
	Endpoint string // uid
	Path     string // canonical
	Query    string // kept query without "?"
	AnyQuery bool   // then Query does not matter
}

// PrefixScope is a folder and all below it, in whole segments: /img (or /img/) covers /img, /img/
// and /img/a, not /img2.
type PrefixScope struct {
	Endpoint string // uid, "" for every endpoint of the account
	Path     string
}

var errScope = errors.New("purge must have exactly one scope")

func (p *Purge) check() error {
	n := 0
	for _, set := range []bool{len(p.URLs) > 0, p.Prefix != nil, p.Tag != "", p.Endpoint != "", p.Everything} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("purge at revision %d: %w", p.Revision, errScope)
	}
	return nil
}
