package admincli

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// What people are told of issuers: what is left of limits, and what is wrong.
func TestIssuersAreTold(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct{ name, answer, want string }{
		{"none", `{}`, `
There are no issuers: edgewalk controlplane --acme-issuer names one.
`},
		{"one is down and names wait", `{"leader": "cp-1", "issuers": [
			{"name": "le", "state": "DOWN", "message": "it answered 503", "retryTime": "2026-11-26T12:05:00Z",
				"buckets": [{"name": "orders", "limit": 240, "used": 17, "span": "10800s"}], "running": 2, "queued": 300, "eta": "8400s"},
			{"name": "backup", "state": "READY", "buckets": [{"name": "orders", "limit": 80, "span": "10800s"}]}]}`, `
ISSUER  STATE                 ORDERS            RUNNING  QUEUED
le      down, again in 5 min  17 of 240 in 3 h  2        300, the last in 2 h
backup  ready                 0 of 80 in 3 h    0        0
le: it answered 503
cp-1 orders.
`},
		{"a rollover", `{"leader": "cp-1", "issuers": [{"name": "le", "state": "READY"}],
			"accountKey": {"thumbprint": "T", "rollover": "DRAINING", "behind": ["backup"]}}`, `
ISSUER  STATE  ORDERS  RUNNING  QUEUED
le      ready  -       0        0
backup: its account still has the old key: it gets the new one before the next order
Rollover of the account key: waits for orders that are under way.
cp-1 orders.
`},
		{"nobody orders", `{"issuers": [{"name": "le", "state": "READY"}]}`, `
ISSUER  STATE  ORDERS  RUNNING  QUEUED
le      ready  -       0        0
No control plane orders at the moment.
`},
	} {
		resp := new(adminv1.ListIssuersResponse)
		if err := protojson.Unmarshal([]byte(test.answer), resp); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		if err := issuersTable(resp, now).write(&got, false); err != nil {
			t.Fatal(err)
		}
		if got.String() != strings.TrimPrefix(test.want, "\n") {
			t.Errorf("%s:\n%s", test.name, got.String())
		}
	}
}
