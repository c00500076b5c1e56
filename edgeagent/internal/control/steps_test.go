package control

import (
	"slices"
	"testing"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// Each case begins with an agent that holds a small topology, says some messages, and tells where
// that leaves the agent: at a revision on the same stream, or gone from it and back with what it
// resumes from.
func TestMessagesOnTopOfAState(t *testing.T) {
	t.Parallel()
	const stays, resumes, startsOver = "stays", "resumes", "starts over"
	type script struct {
		messages []message
		then     string
		want     *history
	}
	for name, play := range map[string]func(h *history) script{
		"a step that follows is applied": func(h *history) script {
			at := h.revision
			return script{[]message{live(at, at+1, h.account("new"))}, stays, h}
		},
		"a step may skip revisions that edges never see": func(h *history) script {
			at := h.revision
			h.revision += 7
			ch := h.account("new")
			return script{[]message{live(at, h.revision, ch)}, stays, h}
		},
		"a step with deletions": func(h *history) script {
			at := h.revision
			return script{[]message{live(at, at+1, h.drop("accounts/acme"))}, stays, h}
		},
		"a step that the agent has is dropped": func(h *history) script {
			at := h.revision
			return script{[]message{live(at-1, at, &edgev1.Change{Key: "accounts/acme", ModRevision: at})}, stays, h}
		},
		"a step that comes twice is dropped the second time": func(h *history) script {
			at := h.revision
			step := live(at, at+1, h.account("new"))
			return script{[]message{step, step}, stays, h}
		},
		"a step that does not follow is not applied": func(h *history) script {
			was := h.clone()
			h.account("lost")
			return script{[]message{live(h.revision, h.revision+1, h.account("new"))}, resumes, was}
		},
		"steps in the wrong order": func(h *history) script {
			was := h.clone()
			at := h.revision
			one, two := h.account("one"), h.account("two")
			return script{[]message{live(at+1, at+2, two), live(at, at+1, one)}, resumes, was}
		},
		"a bookmark advances the position": func(h *history) script {
			h.revision += 5
			return script{[]message{bookmark(h.revision, h.digest())}, stays, h}
		},
		"the step after a bookmark may name the step before it": func(h *history) script {
			at := h.revision
			h.revision += 5
			mark := bookmark(h.revision, h.digest())
			ch := h.account("new")
			return script{[]message{mark, live(at, h.revision, ch)}, stays, h}
		},
		"a late bookmark says nothing": func(h *history) script {
			return script{[]message{bookmark(h.revision-1, make([]byte, 16))}, stays, h}
		},
		"a bookmark with another digest": func(h *history) script {
			return script{[]message{bookmark(h.revision, make([]byte, 16))}, startsOver, h}
		},
		"a silently lost step is found at the next bookmark": func(h *history) script {
			was := h.clone()
			h.account("lost")
			return script{[]message{bookmark(h.revision, h.digest())}, startsOver, was}
		},
		"a catch-up is applied at its end": func(h *history) script {
			at := h.revision
			one, two, three := h.account("one"), h.drop("accounts/acme"), h.domain("one", "c.test.example")
			return script{
				[]message{
					begin(&edgev1.Begin{From: at, Target: h.revision}), chunk(0, three, two), chunk(1, one),
					end(h.revision, h.digest()),
				},
				stays, h,
			}
		},
		"a catch-up from before what the agent has": func(h *history) script {
			at := h.revision
			again, one := h.live["accounts/acme"], h.account("one")
			return script{
				[]message{
					begin(&edgev1.Begin{From: at - 2, Target: h.revision}), chunk(0, again, one),
					end(h.revision, h.digest()),
				},
				stays, h,
			}
		},
		"an empty catch-up": func(h *history) script {
			return script{
				[]message{begin(&edgev1.Begin{From: h.revision, Target: h.revision}), end(h.revision, h.digest())},
				stays, h,
			}
		},
		"a catch-up whose digest is wrong is not applied": func(h *history) script {
			was := h.clone()
			one := h.account("one")
			return script{
				[]message{
					begin(&edgev1.Begin{From: was.revision, Target: h.revision}), chunk(0, one),
					end(h.revision, was.digest()),
				},
				startsOver, was,
			}
		},
		"a catch-up from beyond what the agent has": func(h *history) script {
			return script{[]message{begin(&edgev1.Begin{From: h.revision + 1, Target: h.revision + 2})}, resumes, h}
		},
		"a catch-up to before what the agent has": func(h *history) script {
			return script{[]message{begin(&edgev1.Begin{From: 1, Target: h.revision - 1})}, resumes, h}
		},
		"a chunk out of turn": func(h *history) script {
			was := h.clone()
			one := h.account("one")
			return script{
				[]message{begin(&edgev1.Begin{From: was.revision, Target: h.revision}), chunk(1, one)}, resumes, was,
			}
		},
		"a chunk of nothing": func(h *history) script { return script{[]message{chunk(0)}, resumes, h} },
		"an end of nothing": func(h *history) script {
			return script{[]message{end(h.revision, h.digest())}, resumes, h}
		},
		"a state in a state": func(h *history) script { return script{append(h.full()[:2], h.full()...), resumes, h} },
		"a step in a state": func(h *history) script {
			was := h.clone()
			return script{append(h.full()[:2], live(h.revision, h.revision+1, h.account("new"))), resumes, was}
		},
		"another end than was announced": func(h *history) script {
			return script{
				[]message{
					begin(&edgev1.Begin{From: h.revision, Target: h.revision + 1}), end(h.revision+2, h.digest()),
				},
				resumes, h,
			}
		},
		"a sign of life in a state counts as nothing else": func(h *history) script {
			h.account("one")
			all := h.full()
			return script{slices.Insert(all, 1, bookmark(h.revision+9, make([]byte, 16))), stays, h}
		},
		"a full state replaces everything": func(h *history) script {
			h.drop("accounts/acme")
			h.account("one")
			return script{h.full(), stays, h}
		},
		"a full state whose digest is wrong is not applied": func(h *history) script {
			was := h.clone()
			h.account("one")
			all := h.full()
			return script{append(all[:len(all)-1], end(h.revision, was.digest())), startsOver, was}
		},
		"a full state after a resync may go back": func(h *history) script {
			h.revision -= 2
			return script{append([]message{resyncs()}, h.full()...), stays, h}
		},
		"after a resync nothing but a full state will do": func(h *history) script {
			at := h.revision
			was := h.clone()
			return script{[]message{resyncs(), live(at, at+1, h.account("new"))}, resumes, was}
		},
		"a catch-up after a resync": func(h *history) script {
			return script{[]message{resyncs(), begin(&edgev1.Begin{From: h.revision, Target: h.revision})}, resumes, h}
		},
		"a message that the agent does not know": func(h *history) script {
			return script{[]message{{}}, stays, h}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHistory("e1")
			h.account("acme")
			h.domain("acme", "a.test.example")
			h.domain("acme", "b.test.example")
			h.put("accounts/globex", nil)
			p := newPeer(t)
			a := start(t, testConfig(t, t.TempDir(), p.address))
			d := p.accept()
			d.send(h.welcome()).send(h.full()...)
			d.applied(h.revision)

			s := play(h)
			d.send(s.messages...)
			if s.then == stays {
				// One more step proves that the agent is where it should be.
				at := h.revision
				d.send(live(at, at+1, h.account("proof")))
				ack := d.applied(h.revision)
				if !slices.Equal(ack.GetDigest(), h.digest()) {
					t.Errorf("digest %x, want %x", ack.GetDigest(), h.digest())
				}
				a.sees(t, h)
			} else {
				d.over()
				again := p.accept()
				switch {
				case s.then == startsOver && again.hello.GetHave() != nil:
					t.Errorf("resumes from %v, want a full state", again.hello.GetHave())
				case s.then == resumes && again.hello.GetHave().GetRevision() != s.want.revision:
					t.Errorf("resumes from %v, want %d", again.hello.GetHave(), s.want.revision)
				}
				if s.then == resumes && !slices.Equal(again.hello.GetDigest(), s.want.digest()) {
					t.Errorf("digest %x, want %x", again.hello.GetDigest(), s.want.digest())
				}
				a.sees(t, s.want)
			}
			want := h.clone()
			if s.then != stays {
				want = s.want
			}
			a.stop()
			load(t, a.cfg.StateDir).sees(t, want)
		})
	}
}
