package admincli

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// What people are told of a check: a line if all is well, and else what is wrong and every way to
// repair it.
func TestCheckIsTold(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct{ name, answer, want string }{
		{"ready", `{"ready": true, "customDomain": {"domain": "images.example.com", "state": "ACTIVE", "certificate": {"state": "ISSUED",
			"issuer": "Let's Encrypt", "notAfter": "2027-01-09T13:00:00Z", "edges": {"serving": 12, "total": 12}}}}`, `
images.example.com  ready: Let's Encrypt, 44 days left, served by 12 of 12 edges
`},
		{"ready, and not for long", `{"ready": true, "customDomain": {"domain": "images.example.com", "state": "ACTIVE",
			"tls": {"mode": "UPLOADED"}, "certificate": {"state": "ISSUED",
			"reason": "ENDS_SOON", "message": "it ends on 2026-12-05: upload the next one", "notAfter": "2026-12-05T13:00:00Z",
			"edges": {"serving": 11, "total": 12}}}}`, `
images.example.com  ready: uploaded, 9 days left, served by 11 of 12 edges; it ends on 2026-12-05: upload the next one
`},
		{"ready without a certificate", `{"ready": true, "customDomain": {"name": "accounts/acme/customDomains/images.example.com", "domain": "images.example.com", "state": "ACTIVE",
			"certificate": {"state": "NONE", "reason": "NO_ISSUER"}}}`, `
images.example.com  ready: served over http:// alone
`},
		{"not a domain yet", `{"customDomain": {"domain": "images.example.com", "state": "PENDING", "ownership": {"state": "PENDING", "message": "no TXT"},
			"routing": {"state": "NXDOMAIN"}, "certificate": {"state": "NONE"}}}`, `
images.example.com  not a domain yet: edgewalk create domain images.example.com -A acme
  ownership    x not proven   no TXT
  routing      x nxdomain
  certificate  . none         for ownership and routing
`},
		{"two ways", `{"customDomain": {"name": "accounts/acme/customDomains/images.example.com",
			"domain": "images.example.com", "state": "PENDING",
			"ownership": {"state": "PENDING", "message": "no TXT at _edgewalk.images.example.com or _edgewalk.example.com; no CNAME"},
			"routing": {"state": "MIXED", "message": "A 203.0.113.7 is ours; AAAA 2001:db8::99 is not (it answered 404 as nginx)",
				"nameServers": ["ns1.example.net", "ns2.example.net"], "lastCheck": "2026-11-26T11:59:59Z", "nextCheck": "2026-11-26T12:00:15Z"},
			"certificate": {"state": "WAITING", "seen": ["example.com CAA 0 issue \"letsencrypt.org\""]},
			"records": [
				{"action": "SET", "name": "images.example.com", "type": "CNAME", "value": "k7f3.edge.example.net", "option": 1, "note": "instead of A and AAAA; nothing else needed"},
				{"action": "KEEP", "name": "images.example.com", "type": "A", "value": "203.0.113.7", "option": 2, "note": "is ours"},
				{"action": "DELETE", "name": "images.example.com", "type": "AAAA", "value": "2001:db8::99", "option": 2, "note": "it answered 404 as nginx"},
				{"action": "SET", "name": "_edgewalk.images.example.com", "type": "TXT", "value": "edgewalk=k7f3", "option": 2}]}}`, `
images.example.com  PENDING
  ownership    x not proven   no TXT at _edgewalk.images.example.com or _edgewalk.example.com; no CNAME
  routing      x mixed        A 203.0.113.7 is ours; AAAA 2001:db8::99 is not (it answered 404 as nginx)
  certificate  . waiting      for ownership and routing; found example.com CAA 0 issue "letsencrypt.org"
Set at your DNS (ns1.example.net, ns2.example.net)
either
         images.example.com            CNAME  k7f3.edge.example.net   instead of A and AAAA; nothing else needed
or
  keep   images.example.com            A      203.0.113.7   is ours
  delete images.example.com            AAAA   2001:db8::99   it answered 404 as nginx
         _edgewalk.images.example.com  TXT    "edgewalk=k7f3"
Asked both name servers 1 s ago. Next look in 15 s, or: edgewalk domains check images.example.com -A acme --wait 10m
`},
		{"one way", `{"customDomain": {"name": "accounts/acme/customDomains/images.example.com",
			"domain": "images.example.com", "state": "ACTIVE", "ownership": {"state": "TRUSTED"},
			"routing": {"state": "NXDOMAIN", "message": "images.example.com does not exist", "lastCheck": "2026-11-26T11:50:00Z"},
			"certificate": {"state": "NONE", "reason": "NO_ISSUER"},
			"records": [{"action": "SET", "name": "images.example.com", "type": "CNAME", "value": "k7f3.edge.example.net", "option": 1, "note": "nothing else needed"}]}}`, `
images.example.com  ACTIVE
  ownership    + trusted
  routing      x nxdomain     images.example.com does not exist
  certificate  . none         the control plane has no issuer; served over http:// alone
Set at your DNS
         images.example.com  CNAME  k7f3.edge.example.net   nothing else needed
Asked 10 min ago.
`},
	} {
		resp := new(adminv1.CheckCustomDomainResponse)
		if err := protojson.Unmarshal([]byte(test.answer), resp); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		if err := writeCheck(&got, "accounts/acme", resp, now); err != nil {
			t.Fatal(err)
		}
		if got.String() != strings.TrimPrefix(test.want, "\n") {
			t.Errorf("%s:\n%s", test.name, got.String())
		}
	}
}
