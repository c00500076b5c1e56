package feed

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// The pools are read from an account's encoding as the generated code reads them.
func FuzzPoolsOf(f *testing.F) {
	for _, a := range []*topologyv1.Account{
		{}, {Pools: []string{"gold"}}, {DisplayName: "Acme", Pools: []string{"gold", "iron"}, Etag: "x"},
	} {
		encoded, err := proto.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		got := poolsOf(encoded)
		a := new(topologyv1.Account)
		if err := proto.Unmarshal(encoded, a); err == nil && !slices.Equal(got, a.GetPools()) {
			t.Errorf("%q, want %q", got, a.GetPools())
		}
	})
}
