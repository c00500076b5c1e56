package httpcache

import (
	"cmp"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Inspect says what is stored for a request's URL, of every variant, and what the request would do with it. It asks no
// origin and changes nothing.
func (c *Cache) Inspect(r *Request) []*topologyv1.Explanation_Cached {
	q := c.newQuery(r)
	var out []*topologyv1.Explanation_Cached
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
		out = append(out, &topologyv1.Explanation_Cached{
			Status: int32(h.Status), Supplier: supplierID(q, d.supplier), Stored: timestamppb.New(h.ResponseTime),
			Age: durationpb.New(v.Age), Ttl: durationpb.New(v.TTL), SizeBytes: h.Length, Use: use,
		})
	}
	return out
}
