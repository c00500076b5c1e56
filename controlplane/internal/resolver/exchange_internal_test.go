package resolver

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/edgewalk/edgewalk/internal/dnstest"
)

// A name server that is silent at one of its addresses is asked at the other before anybody knows
// that.
func TestAddressesOfAServer(t *testing.T) {
	t.Parallel()
	n := dnstest.New(t, "silent=127.0.0.11", "ns=127.0.0.12")
	n.Zone("example.com", "ns", "www A 203.0.113.1")
	n.Mute("silent", true)
	r := New(Config{Port: n.Resolver.Port(), Timeout: 2 * time.Minute})
	r.lost = time.Millisecond
	s := r.Session()
	to := server{name: "ns", addrs: []netip.Addr{netip.MustParseAddr("127.0.0.11"), netip.MustParseAddr("127.0.0.12")}}
	v := s.askAddresses(t.Context(), zone{name: "example.com"}, to, question{"www.example.com", dnsmessage.TypeA})
	if v.Outcome != Found || len(s.silent) > 0 {
		t.Errorf("outcome %d, %v; given up: %v", v.Outcome, v.Err, s.silent)
	}
}

// Whatever a server sends is read or refused, and what is read answers the question.
func FuzzParse(f *testing.F) {
	q := question{"www.example.com", dnsmessage.TypeTXT}
	name := dnsmessage.MustNewName("www.example.com.")
	head := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET}
	for _, body := range []dnsmessage.ResourceBody{
		&dnsmessage.TXTResource{TXT: []string{"edgewalk=", "x"}}, &dnsmessage.AResource{A: [4]byte{1, 2, 3, 4}},
		&dnsmessage.AAAAResource{}, &dnsmessage.CNAMEResource{CNAME: name}, &dnsmessage.NSResource{NS: name},
		&dnsmessage.SOAResource{NS: name, MBox: name},
		&dnsmessage.UnknownResource{Type: typeCAA, Data: []byte("\x00\x05issueca.test")},
		&dnsmessage.MXResource{MX: name}, &dnsmessage.UnknownResource{Type: 65, Data: []byte("x")},
	} {
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 7, Response: true, Authoritative: true},
			Questions: []dnsmessage.Question{{Name: name, Type: q.kind, Class: dnsmessage.ClassINET}},
			Answers: []dnsmessage.Resource{
				{Header: head, Body: body},
			}, Authorities: []dnsmessage.Resource{{Header: head, Body: body}},
		}
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
		f.Add(packed[:len(packed)-3])
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		m, err := parse(packed, 7, q)
		if err != nil {
			return
		}
		if len(m.answers) > maxRecords || len(m.authority) > maxRecords {
			t.Errorf("%d and %d records", len(m.answers), len(m.authority))
		}
		v := viewOf("ns", q, m, nil)
		for _, r := range v.Records {
			if strings.ContainsFunc(r.Value, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Errorf("%q cannot be shown", r.Value)
			}
			if r.Name != q.name || r.Type != "TXT" && r.Type != "CNAME" {
				t.Errorf("%v answers another question", r)
			}
		}
		if (v.Outcome == Found) != (len(v.Records) > 0) {
			t.Errorf("outcome %d with %d records", v.Outcome, len(v.Records))
		}
	})
}
