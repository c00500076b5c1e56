// Package due keeps when to look at which custom domain, and lets those that are due take turns.
package due

import (
	"container/heap"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
)

// Queue is when to look at which domain. It is used by one goroutine at a time.
type Queue struct {
	entries map[topology.Key]*Entry
	due     dueHeap
}

// Entry is one domain.
type Entry struct {
	Key topology.Key
	// Due is when to look at it.
	Due time.Time
	// Busy says that somebody is at it; it is not due meanwhile.
	Busy bool

	created int64 // 0 while only its facts were delivered
	uid     string
	index   int // in the heap, -1 when it is in none
}

// New returns an empty queue.
func New() *Queue { return &Queue{entries: make(map[topology.Key]*Entry)} }

// Get returns the entry of a domain, nil if there is none.
func (q *Queue) Get(key topology.Key) *Entry { return q.entries[key] }

// Each calls a function with the entry of each domain, in no order. It may put the entry.
func (q *Queue) Each(each func(*Entry)) {
	for _, e := range q.entries {
		each(e)
	}
}

func (q *Queue) entry(key topology.Key) *Entry {
	e := q.entries[key]
	if e == nil {
		e = &Entry{Key: key, index: -1}
		q.entries[key] = e
	}
	return e
}

// Put places an entry by when it is due, unless it is busy or no domain.
func (q *Queue) Put(e *Entry) {
	switch {
	case e.created == 0 || e.Busy:
		if e.index >= 0 {
			heap.Remove(&q.due, e.index)
		}
	case e.index >= 0:
		heap.Fix(&q.due, e.index)
	default:
		heap.Push(&q.due, e)
	}
}

// First returns the entry that is due first, nil if there is none.
func (q *Queue) First() *Entry {
	if len(q.due) == 0 {
		return nil
	}
	return q.due[0]
}

// Domain takes in that a domain was made, changed or is gone. What was known of an earlier one says
// nothing of it: a new one is due at first. It returns the entry, nil if the domain is gone.
func (q *Queue) Domain(key topology.Key, created int64, first time.Time) *Entry {
	if created == 0 {
		if e := q.entries[key]; e != nil {
			e.created = 0
			q.Put(e)
			delete(q.entries, key)
		}
		return nil
	}
	e := q.entry(key)
	uid := topology.UID(key.ID, created)
	if e.uid != uid {
		e.Due = first
	}
	e.created, e.uid = created, uid
	q.Put(e)
	return e
}

// Facts takes in what is known of a domain; due says when to look at it by that.
func (q *Queue) Facts(f store.DomainFacts, due func(*storev1.DomainFacts) time.Time) {
	if f.Facts == nil {
		return
	}
	e := q.entry(f.Key)
	if e.created != 0 && e.uid != f.Facts.GetUid() {
		return
	}
	e.uid = f.Facts.GetUid()
	e.Due = due(f.Facts)
	q.Put(e)
}

// dueHeap is a heap by when entries are due.
type dueHeap []*Entry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].Due.Before(h[j].Due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	e := x.(*Entry)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.index = -1
	return e
}
