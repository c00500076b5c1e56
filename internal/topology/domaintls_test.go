package topology_test

import (
	"testing"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Challenges of issuers are answered for every domain that may be given a certificate by one, also
// one with an uploaded certificate that is to be followed by a managed one.
func TestManagedDomains(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		tls       *topologyv1.DomainTls
		unmanaged bool
	}{
		{nil, false},
		{&topologyv1.DomainTls{Mode: topologyv1.DomainTls_MANAGED}, false},
		{&topologyv1.DomainTls{Mode: topologyv1.DomainTls_UPLOADED}, true},
		{&topologyv1.DomainTls{Mode: topologyv1.DomainTls_UPLOADED, FallbackManaged: true}, false},
		{&topologyv1.DomainTls{Mode: topologyv1.DomainTls_OFF}, true},
	} {
		d := topology.CompileDomain("acme", &topologyv1.CustomDomain{
			Domain: "img.example.com", State: topologyv1.CustomDomain_ACTIVE, Tls: c.tls,
		})
		if d.Unmanaged != c.unmanaged {
			t.Errorf("%v: unmanaged is %t", c.tls, d.Unmanaged)
		}
	}
}
