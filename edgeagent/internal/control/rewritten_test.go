package control

import (
	"slices"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// next is a step that makes an account.
func (h *history) next(account string) message {
	at := h.revision
	return live(at, at+1, h.account(account))
}

// What is cached by revisions is only looked up in the epoch that it came under. An agent that is
// sent a history that was rewritten, or finds that out by itself, goes on in an epoch of its own,
// which it keeps until the control plane has another one. To the control plane it speaks of that
// one's epoch.
func TestRewrittenHistoryIsAnEpochOfItsOwn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		// play makes the agent be sent h, which it had another form of, over a stream that has
		// begun and others that follow.
		play func(p *peer, d *dialogue, h *history) *dialogue
		own  bool
	}{
		"as it is told": {func(p *peer, d *dialogue, h *history) *dialogue {
			all := h.full()
			all[0].GetBegin().Rewritten = true
			return d.send(all...)
		}, true},
		"as it goes back": {func(p *peer, d *dialogue, h *history) *dialogue {
			h.revision -= 2
			return d.send(h.full()...)
		}, true},
		"by a catch-up that does not fit": {func(p *peer, d *dialogue, h *history) *dialogue {
			d.send(begin(&edgev1.Begin{From: h.revision - 1, Target: h.revision}), end(h.revision, h.digest()))
			d.over()
			d = p.accept()
			return d.send(h.welcome()).send(h.full()...)
		}, true},
		"by a bookmark that does not fit": {func(p *peer, d *dialogue, h *history) *dialogue {
			d.send(bookmark(h.revision, h.digest()))
			d.over()
			d = p.accept()
			return d.send(h.welcome()).send(h.full()...)
		}, true},
		"as it is told, and the state is sent again": {func(p *peer, d *dialogue, h *history) *dialogue {
			all := h.full()
			all[0].GetBegin().Rewritten = true
			d.send(all[:len(all)-1]...).send(end(h.revision, nil))
			d.over()
			d = p.accept()
			return d.send(h.welcome()).send(h.full()...)
		}, true},
		"any other full state": {func(p *peer, d *dialogue, h *history) *dialogue {
			return d.send(h.full()...)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var epochs []string
			cfg := testConfig(t, t.TempDir())
			cfg.Table = route.New(route.Hooks{Epoch: func(epoch string) { epochs = append(epochs, epoch) }})
			h := smallHistory()
			p := newPeer(t)
			cfg.Addresses = []string{p.address}
			a := start(t, cfg)
			d := p.accept()
			d.send(h.welcome()).send(h.full()...)
			d.applied(h.revision)
			d.close(nil)
			d = p.accept()
			h.account("another-form")
			d.send(h.welcome())
			d = test.play(p, d, h)
			d.applied(h.revision)
			a.sees(t, h)
			d.send(h.next("next"))
			d.applied(h.revision)
			d.persisted(h.revision)
			epoch := a.table.Root().Epoch()
			if (epoch != "e1") != test.own {
				t.Errorf("epoch %q", epoch)
			}
			d.close(nil)
			if have := p.accept().hello.GetHave(); have.GetEpoch() != "e1" || have.GetRevision() != h.revision {
				t.Errorf("the agent has %v", have)
			}
			a.stop()
			want := []string{"e1"}
			if test.own {
				want = append(want, epoch)
			}
			if !slices.Equal(epochs, want) {
				t.Errorf("epochs %q began, want %q", epochs, want)
			}

			again := load(t, cfg.StateDir)
			again.sees(t, h)
			if got := again.table.Root().Epoch(); got != epoch {
				t.Errorf("after a restart the epoch is %q, it was %q", got, epoch)
			}
			again.stop()
			cfg = testConfig(t, cfg.StateDir, p.address)
			a = start(t, cfg)
			d = p.accept()
			d.send(h.welcome(), bookmark(h.revision, h.digest()))
			d.applied(h.revision)
			d.send(h.next("after"))
			d.applied(h.revision)
			if got := a.table.Root().Epoch(); got != epoch {
				t.Errorf("after a stream that goes on the epoch is %q, it was %q", got, epoch)
			}
			d.close(nil)
			h.epoch = "e2"
			d = p.accept()
			d.send(h.welcome()).send(h.full()...)
			d.applied(h.revision)
			if got := a.table.Root().Epoch(); got != "e2" {
				t.Errorf("in another epoch it is %q", got)
			}
		})
	}
}
