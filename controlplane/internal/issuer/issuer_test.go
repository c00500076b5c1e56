package issuer_test

import (
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/issuer/acmetest"
)

// A name gets its certificate by one order, whichever of two control planes leads.
func TestOneOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	r.replica("cp1")
	r.replica("cp2")
	r.claim("acme", "img.example.com")
	r.awaitState("acme", "img.example.com", "ISSUED")
	leaf := r.leaf("acme", "img.example.com")
	if err := leaf.VerifyHostname("img.example.com"); err != nil {
		t.Error(err)
	}
	fact, held := r.fact("acme", "img.example.com")
	if fact.GetIssuer() != "le" || held.NotAfter != leaf.NotAfter.Unix() {
		t.Errorf("the fact is %v, the certificate ends %s", fact, leaf.NotAfter)
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	next := fact.GetNextCheck().AsTime()
	if next.After(leaf.NotBefore.Add(life)) || next.Before(r.now().Add(time.Hour)) {
		t.Errorf("it is looked at again at %s", next)
	}
	if n := r.ca.Orders("img.example.com"); n != 1 {
		t.Errorf("%d orders", n)
	}
	if names, err := r.store.ACMENames(t.Context(), "orders/"); err != nil || len(names) > 0 {
		t.Errorf("orders that are under way: %q, %v", names, err)
	}
}
