package domaincheck_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A certificate that ends soon is told, unless its issuer has said that the next one comes later.
func TestCertificatesThatEndSoon(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	day := 24 * time.Hour
	service := d.service(t, d.store)
	uploaded := &topologyv1.DomainTls{Mode: topologyv1.DomainTls_UPLOADED}
	fallback := &topologyv1.DomainTls{Mode: topologyv1.DomainTls_UPLOADED, FallbackManaged: true}
	ordered := &topologyv1.DomainCertificate{
		State: topologyv1.DomainCertificate_ISSUED, Issuer: "le", NextCheck: timestamppb.New(d.clock().Add(day)),
	}
	late := proto.CloneOf(ordered)
	late.NextCheck = timestamppb.New(d.clock().Add(-day))
	failed := proto.CloneOf(ordered)
	failed.State, failed.Reason = topologyv1.DomainCertificate_FAILED, topologyv1.DomainCertificate_ISSUER_DOWN
	const (
		ends = "it ends on 2027-02-13"
		mend = ": upload the next one, or let tls.fallbackManaged order one"
	)
	for _, test := range []struct {
		name  string
		tls   *topologyv1.DomainTls
		known *topologyv1.DomainCertificate
		left  time.Duration // of 90 days
		want  string
	}{
		{"much is left", uploaded, nil, 31 * day, "ISSUED REASON_UNSPECIFIED "},
		{"less than a third is left", uploaded, nil, 29 * day, "ISSUED ENDS_SOON " + ends + mend},
		{"another is ordered in time", fallback, ordered, 29 * day, "ISSUED REASON_UNSPECIFIED "},
		{"it is renewed when its issuer says", nil, ordered, 29 * day, "ISSUED REASON_UNSPECIFIED "},
		{"its issuer is gone", nil, nil, 29 * day, "ISSUED ENDS_SOON " + ends},
		{"nobody has renewed it", nil, late, 29 * day, "ISSUED ENDS_SOON " + ends},
		{"it could not be renewed", nil, failed, 29 * day, "FAILED ISSUER_DOWN "},
		{"it has ended", uploaded, nil, -day, "EXPIRED REASON_UNSPECIFIED it ended on 2027-01-14"},
	} {
		end := d.clock().Add(test.left)
		c := &topologyv1.CustomDomain{Domain: "images.example.com", Uid: "1", Tls: test.tls}
		service.Describe(c, domaincheck.Known{
			Facts: &storev1.DomainFacts{Uid: "1", Certificate: proto.CloneOf(test.known)},
			Certificate: &topology.Certificate{
				NotBefore: end.Add(-90 * day).Unix(), NotAfter: end.Unix(),
			},
		})
		got := c.GetCertificate().GetState().String() + " " + c.GetCertificate().GetReason().String() + " " +
			c.GetCertificate().GetMessage()
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

// Whoever sets up a domain sees the CAA records that will count, before an order can be made.
func TestCAAIsShownBeforeOrders(t *testing.T) {
	t.Parallel()
	for _, orders := range []bool{true, false} {
		d := newDeployment(t)
		d.looker.Orders = orders
		d.Zone("example.com", "ns1.example.net", `@ CAA 0 issue "letsencrypt.org"`)
		service := d.service(t, d.store)
		want := ""
		if orders {
			want = `example.com CAA 0 issue "letsencrypt.org"`
		}

		c := &topologyv1.CustomDomain{Domain: "images.example.com"}
		before, err := service.Preview(t.Context(), "acme", "1", c.GetDomain(), false)
		if err != nil {
			t.Fatal(err)
		}
		service.Describe(c, domaincheck.Known{Facts: before})
		if got := strings.Join(c.GetCertificate().GetSeen(), "; "); got != want {
			t.Errorf("orders %v: before there is a domain: %q", orders, got)
		}

		if err := d.claim(t, "acme", "images.example.com"); err != nil {
			t.Fatal(err)
		}
		if err := service.Check(t.Context(), domainKey("acme", "images.example.com"), true); err != nil {
			t.Fatal(err)
		}
		facts, err := d.store.Facts(t.Context(), domainKey("acme", "images.example.com"))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(facts.Facts.GetCaa(), "; "); got != want {
			t.Errorf("orders %v: once there is: %q", orders, got)
		}
	}
}
