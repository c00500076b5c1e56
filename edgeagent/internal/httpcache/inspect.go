package httpcache

import (
	"cmp"
	"time"
)

// Stored is a stored reply, and what a request would do with it.
type Stored struct {
	Status int
	// Supplier is as in [Reply].
	Supplier string
	// At is when it came, Age its age, and TTL what is left of its lifetime.
	At       time.Time
	Age, TTL time.Duration
	// Length is that of the body, in bytes.
	Length int64
	// Use is "hit", or why it is none.
	Use string
}

// Inspect says what is stored for a request's URL, of every variant, and what the request would do
// with it. It asks no origin and changes nothing.
func (c *Cache) Inspect(r *Request) []Stored {
	q := c.newQuery(r)
	var all []Stored
	for _, e := range c.cfg.Store.Lookup(q.key) {
		h := e.Head()
		d, ok := h.Decoded.(*decoded)
		if !ok || !sameFile(q, h) {
			continue
		}
		u := judge(q, h, &d.meta, c.verdict(h, q.now))
		v := d.fresh.At(h.ResponseTime, q.now)
		use := cmp.Or(u.refused, u.ask, "hit")
		if !q.selects(h.Selecting) {
			use = "other variant"
		}
		all = append(all, Stored{
			Status: h.Status, Supplier: supplierID(q, d.supplier), At: h.ResponseTime, Age: v.Age, TTL: v.TTL,
			Length: h.Length, Use: use,
		})
	}
	return all
}
