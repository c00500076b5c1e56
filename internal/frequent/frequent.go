// Package frequent finds the most frequent of many items in bounded memory, as in J. Misra and D.
// Gries, "Finding repeated elements", Science of Computer Programming 2 (1982).
package frequent

import (
	"cmp"
	"slices"
	"strings"
)

// Counter counts items. It keeps a bounded number of them, among which each is that makes up more
// than its share, one part of that number and one, of all that was counted. What it says of an item
// is never more than was counted, and less by at most that share.
type Counter struct {
	size   int
	counts map[string]int64
}

// New returns a counter that keeps size items.
func New(size int) *Counter { return &Counter{size: size, counts: make(map[string]int64)} }

// Add counts an item n times. It keeps a copy of the item.
func (c *Counter) Add(item string, n int64) {
	if _, kept := c.counts[item]; kept || len(c.counts) < c.size {
		c.add(item, n)
		return
	}
	// As many as can be are taken off of each, the new item too.
	least := n
	for _, count := range c.counts {
		least = min(least, count)
	}
	for kept, count := range c.counts {
		if count == least {
			delete(c.counts, kept)
		} else {
			c.counts[kept] = count - least
		}
	}
	if n > least {
		c.add(item, n-least)
	}
}

func (c *Counter) add(item string, n int64) {
	count, kept := c.counts[item]
	if !kept {
		item = strings.Clone(item)
	}
	c.counts[item] = count + n
}

// Item is an item and how often it was counted at least.
type Item struct {
	Item  string
	Count int64
}

// Top returns the most frequent items, at most n, in their order; those of one count by name.
func (c *Counter) Top(n int) []Item {
	items := make([]Item, 0, len(c.counts))
	for item, count := range c.counts {
		items = append(items, Item{item, count})
	}
	slices.SortFunc(items, func(a, b Item) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Item, b.Item))
	})
	return items[:min(n, len(items))]
}
