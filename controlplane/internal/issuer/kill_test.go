package issuer_test

import (
	"fmt"
	"sync"
	"testing"

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
