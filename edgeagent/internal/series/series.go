// Package series counts what belongs to one endpoint or origin of an account. Those who may make
// endpoints and origins must not fill the memory of the edge or of Prometheus. So the series of all
// families together have a bound, and what is beyond is counted together, as account and id
// `other`.
package series

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Other is the account and the id of what is beyond the bound.
const Other = "other"

// Bound is how many series families may have together. A nil Bound has room for none.
type Bound struct{ left atomic.Int64 }

// NewBound returns a bound of n series.
func NewBound(n int) *Bound {
	b := new(Bound)
	b.left.Store(int64(n))
	return b
}

// take takes room for another series, and reports whether there was any.
func (b *Bound) take() bool {
	if b == nil {
		return false
	}
	if b.left.Add(-1) >= 0 {
		return true
	}
	b.left.Add(1)
	return false
}

func (b *Bound) full() bool { return b == nil || b.left.Load() <= 0 }

// Metric is a counter with one series for each value of a label.
type Metric struct {
	Name, Help string
	// Label has Values. Without one there is a single series.
	Label  string
	Values []string
	// Unit is what is counted in one of the metric's units. Default: 1.
	Unit float64
}

// Family is counters of things that an account and an id name. It is a [prometheus.Collector].
type Family struct {
	bound  *Bound
	exists func(account, id string) bool
	series []line
	descs  []*prometheus.Desc
	other  *Counters

	mu   sync.RWMutex
	each map[name]*Counters
}

type name struct{ account, id string }

// line is one series of each thing.
type line struct {
	desc  *prometheus.Desc
	value string // of the metric's label
	has   bool   // the metric has one
	unit  float64
}

// NewFamily returns a family whose metrics have the labels `account` and what of names, and its
// index of the first series of each metric. What no longer exists is forgotten, when somebody
// looks.
func NewFamily(b *Bound, of string, exists func(account, id string) bool, metrics ...Metric) (*Family, []int) {
	f := &Family{bound: b, exists: exists, each: make(map[name]*Counters)}
	var first []int
	for _, m := range metrics {
		first = append(first, len(f.series))
		unit := m.Unit
		if unit == 0 {
			unit = 1
		}
		labels, values := []string{"account", of}, m.Values
		if m.Label != "" {
			labels = append(labels, m.Label)
		} else {
			values = []string{""}
		}
		desc := prometheus.NewDesc(m.Name, m.Help, labels, nil)
		f.descs = append(f.descs, desc)
		for _, value := range values {
			f.series = append(f.series, line{desc, value, m.Label != "", unit})
		}
	}
	f.other = f.counters()
	for i := range f.other.counts {
		f.other.counts[i].place.Store(own)
	}
	f.each[name{Other, Other}] = f.other
	return f, first
}

func (f *Family) counters() *Counters {
	return &Counters{family: f, counts: make([]count, len(f.series))}
}

// Of returns the counters of a thing. They may be kept.
func (f *Family) Of(account, id string) *Counters {
	f.mu.RLock()
	found := f.each[name{account, id}]
	f.mu.RUnlock()
	if found != nil {
		return found
	}
	if f.bound.full() {
		return f.other
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key := name{strings.Clone(account), strings.Clone(id)}
	if f.each[key] == nil {
		f.each[key] = f.counters()
	}
	return f.each[key]
}

// Counters are those of one thing.
type Counters struct {
	family *Family
	counts []count
}

// count is one series. It takes its place within the bound when it is first counted.
type count struct {
	place atomic.Int32
	n     atomic.Uint64
}

const (
	unplaced int32 = iota
	placing
	own
	others
)

// Add counts n at an index of the family.
func (c *Counters) Add(i int, n uint64) {
	at := &c.counts[i]
	switch at.place.Load() {
	case own:
		at.n.Add(n)
		return
	case unplaced:
		if at.place.CompareAndSwap(unplaced, placing) {
			if c.family.bound.take() {
				at.place.Store(own)
			} else {
				at.place.Store(others)
			}
		}
	}
	at.n.Add(n)
	// Who finds out last that there was no room takes along what was counted meanwhile.
	if at.place.Load() == others {
		c.family.other.counts[i].n.Add(at.n.Swap(0))
	}
}

// Describe implements [prometheus.Collector].
func (f *Family) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range f.descs {
		to <- desc
	}
}

// Collect implements [prometheus.Collector].
func (f *Family) Collect(to chan<- prometheus.Metric) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, c := range f.each {
		if c != f.other && !f.exists(key.account, key.id) {
			f.forget(key, c)
			continue
		}
		for i, s := range f.series {
			n := c.counts[i].n.Load()
			if n == 0 || c.counts[i].place.Load() != own {
				continue
			}
			labels := []string{key.account, key.id}
			if s.has {
				labels = append(labels, s.value)
			}
			to <- prometheus.MustNewConstMetric(s.desc, prometheus.CounterValue, float64(n)*s.unit, labels...)
		}
	}
}

// forget releases the series of a thing.
func (f *Family) forget(key name, c *Counters) {
	delete(f.each, key)
	for i := range c.counts {
		if c.counts[i].place.Swap(others) == own {
			f.bound.left.Add(1)
		}
	}
}
