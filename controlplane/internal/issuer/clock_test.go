package issuer_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/acmetest"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// By a clock that is behind, a certificate begins later. It is good all the same.
func TestAClockThatIsBehindTakesCertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{Now: time.Now})
	r.pass(-2 * time.Hour)
	r.replica("cp1")
	r.issued("acme", "a.example.com")
	if n := r.ca.Orders("a.example.com"); n != 1 {
		t.Errorf("%d orders", n)
	}
}

// A clock that was far ahead for a moment puts no order off: what failed by it is tried again once
// the clock is right, and the issuer that failed by it is asked again, also where another control
// plane leads by then.
func TestAClockThatWasAheadPutsNoOrderOff(t *testing.T) {
	t.Parallel()
	for name, problem := range map[string]func(http.ResponseWriter){
		"an issuer is down": func(w http.ResponseWriter) { acmetest.Problem(w, 500, "serverInternal", "down") },
		"an issuer is busy": func(w http.ResponseWriter) { acmetest.Problem(w, 429, "rateLimited", "too many") },
		"a name is refused": func(w http.ResponseWriter) { acmetest.Problem(w, 400, "rejectedIdentifier", "policy") },
	} {
		for another, leads := range map[string]bool{"another leads": true, "the same leads": false} {
			t.Run(name+", "+another, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, acmetest.Config{})
				var fails atomic.Bool
				fails.Store(true)
				r.ca.Before(func(w http.ResponseWriter, _ *http.Request, what string) bool {
					if what != "order" || !fails.Load() {
						return false
					}
					problem(w)
					return true
				})
				p := r.replica("cp1")
				const year = 365 * day
				r.pass(year)
				r.claim("acme", "a.example.com")
				r.await("an order has failed", func() bool {
					return r.issuance("acme", "a.example.com").GetRetry() != nil
				})
				r.pass(-year)
				fails.Store(false)
				if leads {
					p.stop()
					p = r.replica("cp2")
				}
				r.issued("globex", "b.example.com")
				hour := r.now().Add(time.Hour)
				r.await("the first name has a certificate, within the hour", func() bool {
					fact, _ := r.fact("acme", "a.example.com")
					next := fact.GetNextCheck().AsTime()
					if wait := next.Sub(r.now()); wait > 0 && next.Before(hour) {
						r.pass(wait) // also when the order of the other name has made it wait
					}
					return fact.GetState() == topologyv1.DomainCertificate_ISSUED
				})
				r.await("the issuer is well", func() bool {
					all, err := p.issuer.List(t.Context())
					return err == nil && all[0].Wait == 0 && all[0].OrdersUsed <= 3
				})
			})
		}
	}
}
