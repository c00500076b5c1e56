package control

import (
	"errors"
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// receiving is a state on its way: a full one in a spool, a catch-up in changes.
type receiving struct {
	begin    *edgev1.Begin
	sequence int64 // of the next chunk
	spool    *spool
	changes  []change
	decoder  decoder
}

// discard gives back what the state takes on disk. A nil receiver is no state.
func (r *receiving) discard() {
	if r != nil && r.spool != nil {
		r.spool.discard()
	}
}

func (s *session) begin(b *edgev1.Begin) error {
	c := s.control
	switch {
	case s.receiving != nil:
		return protocolError("a state began inside another")
	case !b.GetFull() && s.everything:
		return protocolError("a part was sent where everything is needed")
	case !b.GetFull() && (b.GetFrom() > c.at.revision || b.GetTarget() < c.at.revision):
		return c.gap(fmt.Sprintf("the catch-up is from %d to %d, the agent is at %d", b.GetFrom(), b.GetTarget(), c.at.revision))
	}
	s.receiving = &receiving{begin: b}
	if b.GetFull() {
		s.receiving.spool = c.disk.spool(position{epoch: s.epoch(b), revision: b.GetTarget()}, s.welcome.GetSettings())
	}
	return nil
}

// epoch is what a full state is kept under. One that does not go on from what the agent holds begins an epoch of the agent's own:
// a purge that comes with a later revision of it would else not count for what was stored by revisions that are lost.
func (s *session) epoch(b *edgev1.Begin) string {
	c := s.control
	epoch := s.welcome.GetEpoch()
	if common(c.at.epoch) != epoch {
		return epoch
	}
	if c.stray = c.stray || b.GetRewritten() || b.GetTarget() < c.at.revision; c.stray {
		return own(epoch)
	}
	return c.at.epoch
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
		if ch.value != nil {
			live = append(live, ch)
		}
	}
	r.spool.add(live)
	return nil
}

func received(changes []*edgev1.Change) []change {
	out := make([]change, 0, len(changes))
	for _, ch := range changes {
		c := change{key: ch.GetKey(), mod: ch.GetModRevision(), create: ch.GetCreateRevision(), value: ch.Value}
		out = append(out, c)
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
	undos := make([]undo, 0, len(r.changes))
	for _, ch := range r.changes {
		undos = append(undos, c.index.apply(ch))
	}
	if !same(e.GetDigest(), c.index.digest) {
		c.index.revert(undos)
		c.stray = true
		return resync("digest")
	}
	return s.finish(e.GetTarget(), r.changes)
}

// replace applies a full state.
func (s *session) replace(r *receiving, e *edgev1.End) error {
	c := s.control
	at := position{epoch: r.spool.base.epoch, revision: e.GetTarget(), digest: r.spool.index.digest}
	if !same(e.GetDigest(), at.digest) {
		return resync("digest")
	}
	if held, sent := c.index.lasting, r.spool.index.lasting; 2*sent < held && !r.begin.GetAllowShrink() {
		return s.refuse(held, sent, e.GetTarget())
	}
	if c.stray {
		c.cfg.Logger.Warn("the topology has another history: what is cached is not used again", "from", c.at.revision, "to", at.revision)
	}
	nacks, err := c.apply(step{full: true, at: at, settings: s.welcome.GetSettings(), changes: r.spool.changes()})
	if err != nil {
		c.disk.distrust(err)
		return resync("journal")
	}
	if c.at.epoch != at.epoch {
		c.forgetAsOf()
	}
	c.at, c.index = at, r.spool.index
	c.stray = false
	c.lost.Store(false)
	c.settings.Store(s.welcome.GetSettings())
	c.disk.install(r.spool, commit{revision: at.revision, digest: at.digest, asOf: c.asOf()}, at)
	s.everything = false
	s.applied(nacks)
	root := c.cfg.Table.Root()
	c.cfg.Logger.Info("topology received", "epoch", common(at.epoch), "revision", at.revision, "accounts", root.Accounts(), "domains", root.Domains())
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
	switch {
	case s.receiving != nil || s.everything:
		return protocolError("a step came before the state that it belongs to")
	case l.GetRevision() <= c.at.revision:
		c.metrics.duplicates.Inc()
		return nil
	case l.GetPrev() > c.at.revision:
		return c.gap(fmt.Sprintf("the step from %d to %d does not follow %d", l.GetPrev(), l.GetRevision(), c.at.revision))
	}
	changes := received(l.GetChanges())
	for _, ch := range changes {
		c.index.apply(ch)
	}
	if l.GetSeen().IsValid() {
		c.inStep(l.GetSeen().AsTime())
	}
	if err := s.finish(l.GetRevision(), changes); err != nil {
		return err
	}
	if l.GetSeen().IsValid() {
		c.metrics.lag.Observe(max(0, c.cfg.Now().Sub(l.GetSeen().AsTime()).Seconds()))
	}
	return nil
}

// finish applies changes that the index holds already, writes them down and acknowledges them.
func (s *session) finish(revision int64, changes []change) error {
	c := s.control
	c.at.revision, c.at.digest = revision, c.index.digest
	nacks, err := c.apply(step{at: c.at, settings: c.Settings(), changes: changesOf(changes)})
	if err != nil {
		return err
	}
	c.write(nil, changesOf(changes))
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

// inOrder notes that the agent and the control plane agree.
func (s *session) inOrder() {
	s.well = true
	s.control.refused("")
}

func (s *session) bookmark(b *edgev1.Bookmark) error {
	c := s.control
	if s.receiving != nil || s.everything || b.GetRevision() < c.at.revision {
		return nil // a sign of life
	}
	if len(b.GetDigest()) > 0 && !same(b.GetDigest(), c.at.digest) {
		c.stray = true
		return resync("digest")
	}
	if b.GetAsOf().IsValid() {
		c.inStep(b.GetAsOf().AsTime())
	}
	s.inOrder()
	if b.GetRevision() > c.at.revision {
		if err := s.finish(b.GetRevision(), nil); err != nil {
			return err
		}
	}
	if c.cfg.InStep != nil {
		c.cfg.InStep()
	}
	return nil
}

// write appends a step to the journal.
func (c *Control) write(settings *edgev1.Welcome_Settings, changes iter.Seq2[change, error]) {
	var frames []byte
	if settings != nil {
		var err error
		if frames, err = appendSettings(frames, settings); err != nil {
			c.cfg.Logger.Error("settings cannot be kept", "err", err)
			return
		}
	}
	for ch := range changes {
		frames = appendChange(frames, ch)
	}
	asOf := c.asOf()
	frames = appendCommit(frames, commit{revision: c.at.revision, digest: c.at.digest, asOf: asOf})
	c.disk.append(frames, c.at, c.Settings(), asOf)
	if c.keys.sealedAll() {
		c.disk.mergeSoon()
	}
}

// changeSettings takes over what the control plane says besides the topology.
func (c *Control) changeSettings(settings *edgev1.Welcome_Settings) {
	if settings == nil || proto.Equal(settings, c.Settings()) {
		return
	}
	c.settings.Store(settings)
	if _, err := c.apply(step{at: c.at, settings: settings, changes: changesOf(nil)}); err != nil {
		c.cfg.Logger.Error("settings cannot be applied", "err", err)
		return
	}
	c.write(settings, changesOf(nil))
}

// gap asks for what is missing, and for everything if there is a gap again.
func (c *Control) gap(what string) error {
	c.gaps++
	c.cfg.Logger.Warn("steps are missing", "what", what)
	return errResync{"gap", c.gaps > 1}
}

func protocolError(what string) error {
	return errors.New("the control plane broke the protocol: " + what)
}

func same(sent []byte, have topology.Digest) bool { return string(sent) == string(have[:]) }
