// Package topologytest makes topologies for tests of those who receive them.
package topologytest

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// Records are the resources, by key ("urlEndpoints/acme/default"), as they would be stored at a
// revision; nil is one that was deleted then. created is when they were made.
func Records(t testing.TB, created, revision int64, resources map[string]proto.Message) []topology.Record {
	t.Helper()
	var records []topology.Record
	for name, m := range resources {
		key, err := topology.ParseKey(name)
		if err != nil {
			t.Fatal(err)
		}
		r := topology.Record{Key: key, CreateRevision: created, ModRevision: revision}
		if m != nil {
			if r.Value, err = topology.Encode(m); err != nil {
				t.Fatal(err)
			}
		}
		records = append(records, r)
	}
	return records
}
