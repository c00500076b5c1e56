// Package purges decides which purges cover a stored reply, a remembered "no such file", or a
// running walk.
//
// It owns that question: no other package compares with a purge. What is stored, and what happens
// to it, is the business of the caches. The table lives in memory only: after a start, the agent
// applies the purges of its state folder before it serves.
//
// What always holds: once [Table.Apply] has returned, every verdict takes the purge into account;
// applying purges again, or in another order, changes no verdict; a reader never waits for a
// writer.
package purges

import (
	"errors"
	"fmt"
)

// Verdict is what the purges say about a stored reply, a remembered "no such file" or a running
// fill.
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

// MaxTags is how many tags of one scope count. Each costs a lookup per [Table.Check] once the
// account has tag purges.
const MaxTags = 64

// Scope is what a purge can address.
type Scope struct {
	Account  string   // uid
	Endpoint string   // uid
	Path     string   // canonical path of the file, begins with "/"
	Query    string   // kept query without "?"
	Tags     []string // at most [MaxTags]
}

// Purge covers what its one scope addresses in an account, if that has an asof below Revision.
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
