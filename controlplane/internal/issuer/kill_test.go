package issuer_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/acmetest"
)

// The control plane that leads dies at each step of an order, before the issuer hears of the step
// and after it has answered: the next one ends the order. A name has one order, and one more only
// where the death hid from everybody where the first one is.
func TestLeadersDie(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	var mu sync.Mutex
	var at func(what string, after bool) bool // kills the leader, or does nothing
	r.ca.Around(func(what string, after bool) (lost bool) {
		mu.Lock()
		kill := at
		mu.Unlock()
		return kill != nil && kill(what, after)
	})
	r.replica("cp0")
	want := map[string]int{}
	round := 0
	for _, step := range []string{"order", "authorization", "challenge", "order-state", "finalize", "certificate"} {
		for _, after := range []bool{false, true} {
			round++
			name := fmt.Sprintf("k%d.example.com", round)
			want[name] = 1
			if step == "order" && after {
				want[name] = 2
			}
			victim := r.leader()
			r.replica(fmt.Sprint("cp", round))
			var once sync.Once
			mu.Lock()
			at = func(what string, done bool) (lost bool) {
				if what == step && done == after {
					once.Do(func() {
						victim.kill()
						lost = true
					})
				}
				return lost
			}
			mu.Unlock()
			r.claim("acme", name)
			r.await("the leader dies at "+step, func() bool { return victim.dead.Load() })
			r.awaitState("acme", name, "ISSUED")
			mu.Lock()
			at = nil
			mu.Unlock()
			victim.stop()
		}
	}
	r.oracle(want)
}

// An order that another leader has finalized and that the issuer still works at is read again when
// the issuer says so, and not before.
func TestAnOrderInProcessing(t *testing.T) {
	t.Parallel()
	const later = 2 * time.Second
	r := newRig(t, acmetest.Config{})
	victim := r.replica("cp0")
	var mu sync.Mutex
	var died bool
	var asked []time.Time // for the order, since then
	r.ca.Around(func(what string, after bool) (lost bool) {
		mu.Lock()
		defer mu.Unlock()
		if died || what != "finalize" || !after {
			return false
		}
		died = true
		victim.kill()
		return true
	})
	r.ca.Before(func(w http.ResponseWriter, _ *http.Request, what string) bool {
		mu.Lock()
		defer mu.Unlock()
		if !died || what != "order-state" {
			return false
		}
		if asked = append(asked, time.Now()); len(asked) > 1 {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", fmt.Sprint(int(later.Seconds())))
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "processing"}) // who asked asks again
		return true
	})
	r.claim("acme", "a.example.com")
	r.await("the leader dies", func() bool { return victim.dead.Load() })
	r.replica("cp1")
	r.awaitState("acme", "a.example.com", "ISSUED")
	mu.Lock()
	defer mu.Unlock()
	if len(asked) < 2 || asked[1].Sub(asked[0]) < later {
		t.Errorf("the order was asked for at %v", asked)
	}
	victim.stop()
	r.oracle(map[string]int{"a.example.com": 1})
}

// An order that etcd does not give for a moment is not given up: the next leader ends it, and makes
// no other.
func TestAnOrderThatCannotBeReadForAMomentGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	victim := r.replica("cp0")
	var once sync.Once
	r.ca.Around(func(what string, after bool) (lost bool) {
		if what == "authorization" && !after {
			once.Do(func() {
				victim.kill()
				lost = true
			})
		}
		return lost
	})
	r.claim("acme", "a.example.com")
	r.await("the leader dies", func() bool { return victim.dead.Load() })
	victim.stop()
	var etcd *storetest.Busy
	r.opens = func(cfg store.Config) (s *store.Store) {
		s, etcd = storetest.OpenBusy(t, cfg)
		etcd.Refuse("acme/orders/acme/")
		return s
	}
	r.replica("cp1")
	r.await("its successor asks for the order in vain", func() bool { return etcd.Refused() > 0 })
	etcd.Answer()
	r.await("the certificate", func() bool {
		if r.idle() {
			r.advance(time.Minute)
		}
		return r.state("acme", "a.example.com") == "ISSUED"
	})
	r.oracle(map[string]int{"a.example.com": 1})
}
