package control

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// receiving is a state that is being received: a full one is kept in spool, a catch-up in changes.
type receiving struct {
	begin    *edgev1.Begin
	sequence int64 // of the next chunk
	spool    *state.Spool
	changes  []state.Change
	decoder  decoder
}

// discard removes the state's file from the disk. It does nothing on a nil receiver.
func (r *receiving) discard() {
	if r != nil && r.spool != nil {
		r.spool.Discard()
	}
}

func (s *session) begin(b *edgev1.Begin) error {
	c := s.control
	at := c.state.At()
	switch {
	case s.receiving != nil:
		return protocolError("a state began inside another")
	case !b.GetFull() && s.everything:
		return protocolError("a part was sent where everything is needed")
	case !b.GetFull() && (b.GetFrom() > at.Revision || b.GetTarget() < at.Revision):
		return c.gap(fmt.Sprintf("the catch-up is from %d to %d, the agent is at %d", b.GetFrom(), b.GetTarget(),
			at.Revision))
	}
	s.receiving = &receiving{begin: b}
	if b.GetFull() {
		s.receiving.spool = c.state.Spool(state.Position{Epoch: s.epoch(b), Revision: b.GetTarget()},
			s.welcome.GetSettings())
	}
	return nil
}

// epoch returns the epoch that a full state is kept under. A full state that does not continue what
// the agent holds begins an epoch of the agent's own. In the epoch before, a purge of a later
// revision would not cover replies that were stored by revisions that are lost.
func (s *session) epoch(b *edgev1.Begin) string {
	c := s.control
	epoch, at := s.welcome.GetEpoch(), c.state.At()
	if state.Common(at.Epoch) != epoch {
		return epoch
	}
	if c.stray = c.stray || b.GetRewritten() || b.GetTarget() < at.Revision; c.stray {
		return state.Own(epoch)
	}
	return at.Epoch
}

func (s *session) chunk(chunk *edgev1.Chunk) error {
	r := s.receiving
	if r == nil || chunk.GetSequence() != r.sequence {
		return protocolError("a chunk is out of turn")
	}
	r.sequence++
	sent := chunk.GetChanges()
	if compressed := chunk.GetZstd(); len(compressed) > 0 {
		if len(sent) > 0 {
			return protocolError("a chunk is both plain and compressed")
		}
		var err error
		if sent, err = r.decoder.decode(compressed); err != nil {
			return protocolError(fmt.Sprintf("chunk %d cannot be read: %v", chunk.GetSequence(), err))
		}
	}
	changes := received(sent)
	if r.spool == nil {
		r.changes = append(r.changes, changes...)
		return nil
	}
	live := changes[:0]
	for _, ch := range changes {
		if ch.Value != nil {
			live = append(live, ch)
		}
	}
	r.spool.Add(live)
	return nil
}

func received(changes []*edgev1.Change) []state.Change {
	out := make([]state.Change, 0, len(changes))
	for _, ch := range changes {
		out = append(out,
			state.Change{Key: ch.GetKey(), Mod: ch.GetModRevision(), Create: ch.GetCreateRevision(), Value: ch.Value})
	}
	return out
}

func (s *session) end(e *edgev1.End) error {
	r := s.receiving
	if r == nil || e.GetTarget() != r.begin.GetTarget() {
		return protocolError("a state ended that had not begun")
	}
	s.receiving = nil
	if r.spool == nil {
		return s.catchUp(r, e)
	}
	defer r.discard()
	return s.replace(r, e)
}

// catchUp applies what has changed, once it is known to lead to where the control plane stands.
func (s *session) catchUp(r *receiving, e *edgev1.End) error {
	c := s.control
	digest, undo := c.state.Count(r.changes)
	if !same(e.GetDigest(), digest) {
		undo()
		c.stray = true
		return resync("digest")
	}
	return s.finish(e.GetTarget(), digest, r.changes)
}

// replace applies a full state.
func (s *session) replace(r *receiving, e *edgev1.End) error {
	c := s.control
	before := c.state.At()
	at := state.Position{Epoch: r.spool.Epoch(), Revision: e.GetTarget(), Digest: r.spool.Digest()}
	if !same(e.GetDigest(), at.Digest) {
		return resync("digest")
	}
	if held, sent := c.state.Lasting(), r.spool.Lasting(); 2*sent < held && !r.begin.GetAllowShrink() {
		return s.refuse(held, sent, e.GetTarget())
	}
	if c.stray {
		c.cfg.Logger.Warn("the topology has another history: what is cached is not used again", "from", before.Revision, "to", at.Revision)
	}
	nacks, err := c.apply(state.Step{Full: true, At: at, Settings: s.welcome.GetSettings(), Changes: r.spool.Changes()})
	if err != nil {
		c.state.Distrust(err)
		return resync("journal")
	}
	if before.Epoch != at.Epoch {
		c.forgetAsOf()
	}
	c.stray = false
	c.lost.Store(false)
	c.settings.Store(s.welcome.GetSettings())
	c.state.Install(r.spool, at.Revision, c.asOf())
	s.everything = false
	s.applied(nacks)
	root := c.cfg.Table.Root()
	c.cfg.Logger.Info("topology received", "epoch", state.Common(at.Epoch), "revision", at.Revision, "accounts",
		root.Accounts(), "domains", root.Domains())
	return nil
}

// refuse keeps what the agent has and says so.
func (s *session) refuse(held, sent int, target int64) error {
	s.control.metrics.refusedStates.Inc()
	err := fmt.Errorf("a topology of %d resources is refused, since the edge holds %d and a loss of most is more often a fault than a wish: "+
		"to accept it, restart the control plane with --allow-shrink", sent, held)
	s.control.cfg.Logger.Error("topology refused", "sent", sent, "held", held, "revision", target)
	s.control.refused(err.Error())
	s.out.acknowledge([]*topologyv1.Rejected{{Revision: target, Reason: err.Error()}})
	return err
}

func (s *session) live(l *edgev1.Live) error {
	c := s.control
	at := c.state.At()
	switch {
	case s.receiving != nil || s.everything:
		return protocolError("a step came before the state that it belongs to")
	case l.GetRevision() <= at.Revision:
		c.metrics.duplicates.Inc()
		return nil
	case l.GetPrev() > at.Revision:
		return c.gap(fmt.Sprintf("the step from %d to %d does not follow %d", l.GetPrev(), l.GetRevision(),
			at.Revision))
	}
	changes := received(l.GetChanges())
	digest, _ := c.state.Count(changes)
	if l.GetSeen().IsValid() {
		c.inStep(l.GetSeen().AsTime())
	}
	if err := s.finish(l.GetRevision(), digest, changes); err != nil {
		return err
	}
	if l.GetSeen().IsValid() {
		c.metrics.lag.Observe(max(0, c.cfg.Now().Sub(l.GetSeen().AsTime()).Seconds()))
	}
	return nil
}

// finish applies changes that the digest counts already, appends them to the journal and
// acknowledges them.
func (s *session) finish(revision int64, digest topology.Digest, changes []state.Change) error {
	c := s.control
	at := state.Position{Epoch: c.state.At().Epoch, Revision: revision, Digest: digest}
	nacks, err := c.apply(state.Step{At: at, Settings: c.Settings(), Changes: state.Changes(changes)})
	if err != nil {
		return err
	}
	if err := c.write(revision, nil, changes); err != nil {
		return err
	}
	c.gaps = 0
	s.applied(nacks)
	return nil
}

func (s *session) applied(nacks []*topologyv1.Rejected) {
	c := s.control
	for _, r := range nacks {
		c.metrics.nacks.Inc()
		c.cfg.Logger.Warn("resource rejected", "key", r.GetKey(), "revision", r.GetRevision(), "why", r.GetReason())
	}
	s.inOrder()
	c.publish()
	s.out.acknowledge(nacks)
}

// inOrder records that the agent and the control plane agree.
func (s *session) inOrder() {
	s.inStep = true
	s.control.refused("")
}

func (s *session) bookmark(b *edgev1.Bookmark) error {
	c := s.control
	at := c.state.At()
	if s.receiving != nil || s.everything || b.GetRevision() < at.Revision {
		return nil // it only shows that the control plane is alive
	}
	if len(b.GetDigest()) > 0 && !same(b.GetDigest(), at.Digest) {
		c.stray = true
		return resync("digest")
	}
	if b.GetAsOf().IsValid() {
		c.inStep(b.GetAsOf().AsTime())
	}
	s.inOrder()
	if b.GetRevision() > at.Revision {
		if err := s.finish(b.GetRevision(), at.Digest, nil); err != nil {
			return err
		}
	}
	if c.cfg.InStep != nil {
		c.cfg.InStep(!s.told)
		s.told = true
	}
	return nil
}

// write appends a step to the journal, which makes its revision the agent's position.
func (c *Control) write(revision int64, settings *edgev1.Welcome_Settings, changes []state.Change) error {
	if err := c.state.Append(revision, settings, changes, c.asOf()); err != nil {
		return err
	}
	if c.keys.sealedAll() {
		c.state.MergeSoon()
	}
	return nil
}

// settings applies others than those of the welcome.
func (s *session) settings(settings *edgev1.Welcome_Settings) error {
	if s.receiving != nil {
		return protocolError("settings came inside a state")
	}
	s.welcome.Settings = settings
	if !s.everything {
		s.control.changeSettings(settings)
	}
	return nil
}

// changeSettings applies and keeps what the control plane says besides the topology.
func (c *Control) changeSettings(settings *edgev1.Welcome_Settings) {
	if settings == nil || proto.Equal(settings, c.Settings()) {
		return
	}
	c.settings.Store(settings)
	at := c.state.At()
	if _, err := c.apply(state.Step{At: at, Settings: settings, Changes: state.Changes(nil)}); err != nil {
		c.cfg.Logger.Error("settings cannot be applied", "err", err)
		return
	}
	if err := c.write(at.Revision, settings, nil); err != nil {
		c.cfg.Logger.Error("settings cannot be kept", "err", err)
	}
}

// gap returns the error that asks for what is missing, or for everything if there was a gap before
// and no step was applied since.
func (c *Control) gap(what string) error {
	c.gaps++
	c.cfg.Logger.Warn("steps are missing", "what", what)
	return errResync{"gap", c.gaps > 1}
}

func protocolError(what string) error {
	return errors.New("the control plane violates the protocol: " + what)
}

func same(sent []byte, have topology.Digest) bool { return string(sent) == string(have[:]) }
