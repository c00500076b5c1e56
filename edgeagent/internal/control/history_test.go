package control

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// Any way of cutting a history into steps, catch-ups and full states ends with the same digest and
// routes.
func TestAnySplitOfAHistoryEndsAlike(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := smallHistory()
		p, a, d := synced(t, h)
		for range 30 {
			at := h.revision
			changed := map[string]*edgev1.Change{}
			how := rng.IntN(8)
			n := 1 + rng.IntN(12)
			if how > 1 {
				n = 1
			}
			for range n {
				ch := randomChange(h, rng)
				changed[ch.Key] = ch
			}
			switch how {
			case 0: // a catch-up, in any order
				d.send(begin(&edgev1.Begin{From: at, Target: h.revision}))
				sequence := int64(0)
				for _, ch := range changed {
					d.send(chunk(sequence, ch))
					sequence++
				}
				d.send(end(h.revision, h.digest()))
			case 1: // a reconnection
				d.close(nil)
				d = p.accept()
				d.send(h.welcome()).send(h.full()...)
			default:
				for _, ch := range changed {
					d.send(live(at, h.revision, ch))
				}
			}
		}
		ack := d.applied(h.revision)
		if !slices.Equal(ack.GetDigest(), h.digest()) {
			t.Errorf("seed %d: digest %x, want %x", seed, ack.GetDigest(), h.digest())
		}
		a.sees(t, h)
		a.stop()
		load(t, a.cfg.StateDir).sees(t, h)
	}
}

// Steps may be lost, come twice or come late, in any mixture: at each moment the agent has what the
// control plane had at some revision, never goes back, and in the end has everything.
func TestMangledStreamsNeverMislead(t *testing.T) {
	t.Parallel()
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 2))
		h := smallHistory()
		p, a, d := synced(t, h)
		was := map[int64][]byte{h.revision: h.digest()} // digests
		type step struct {
			revision int64
			change   *edgev1.Change
		}
		var log []step
		reached := int64(0)
		judge := func(revision int64, digest []byte) {
			t.Helper()
			if revision < reached || len(digest) > 0 && !slices.Equal(digest, was[revision]) {
				t.Fatalf("seed %d: the agent is at %d with %x after %d, want %x", seed, revision, digest, reached,
					was[revision])
			}
			reached = revision
		}
		resume := func() {
			d = p.accept()
			d.send(h.welcome())
			have := d.hello.GetHave().GetRevision()
			if have == 0 { // It asks for everything, and still serves what it has.
				d.send(h.full()...)
				return
			}
			judge(have, d.hello.GetDigest())
			since := map[string]*edgev1.Change{}
			for _, s := range log {
				if s.revision > have {
					since[s.change.Key] = s.change
				}
			}
			d.send(begin(&edgev1.Begin{From: have, Target: h.revision}))
			sequence := int64(0)
			for _, ch := range since {
				d.send(chunk(sequence, ch))
				sequence++
			}
			d.send(end(h.revision, h.digest()))
		}
		listen := func() (over bool) {
			for {
				select {
				case m := <-d.received:
					if ack := m.GetAck(); ack != nil {
						judge(ack.GetApplied(), ack.GetDigest())
					}
					continue
				default:
				}
				select {
				case <-d.ended:
					return true
				default:
					return false
				}
			}
		}
		var late []message
		resumed := 0
		for range rounds {
			at := h.revision
			ch := randomChange(h, rng)
			was[h.revision] = h.digest()
			log = append(log, step{h.revision, ch})
			m := live(at, h.revision, ch)
			if rng.IntN(10) == 0 {
				m = bookmark(h.revision, h.digest()) // The step before it is lost.
			}
			switch rng.IntN(12) {
			case 0: // lost
			case 1:
				late = append(late, m)
			case 2:
				late = append(late, m)
				fallthrough
			default:
				d.stream.Send(m) // Its end is seen below.
			}
			if len(late) > 0 && rng.IntN(3) == 0 {
				d.stream.Send(late[0])
				late = late[1:]
			}
			if listen() {
				late = nil
				resumed++
				resume()
			}
		}
		for last := time.Now().Add(patience); reached < h.revision; {
			d.stream.Send(bookmark(h.revision, h.digest()))
			if listen() {
				resumed++
				resume()
			}
			if time.Now().After(last) {
				t.Fatalf("seed %d: the agent stays at %d, want %d", seed, reached, h.revision)
			}
		}
		a.sees(t, h)
		a.stop()
		load(t, a.cfg.StateDir).sees(t, h)
		if resumed == 0 {
			t.Errorf("seed %d: nothing was ever missing", seed)
		}
	}
}

func randomChange(h *history, rng *rand.Rand) *edgev1.Change {
	account := fmt.Sprint("account-", rng.IntN(8))
	name := fmt.Sprintf("h%d.test.example", rng.IntN(20))
	for _, owner := range []string{
		"account-0", "account-1", "account-2", "account-3", "account-4", "account-5", "account-6", "account-7",
	} {
		if key := "customDomains/" + owner + "/" + name; h.live[key] != nil {
			return h.drop(key)
		}
	}
	if rng.IntN(4) == 0 {
		return h.account(account)
	}
	return h.domain(account, name)
}
