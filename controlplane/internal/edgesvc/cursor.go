package edgesvc

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

const (
	// conflateAfter is how many steps an edge may have missed to be sent each. One that missed more
	// is sent the last state of what changed.
	conflateAfter = windowFrames
	// compressFrom is the size of a state that is worth compressing. Most catch-ups are smaller.
	compressFrom = 64 << 10
	// stateTimeout bounds the sending of one state, because the view that it is read from stays in
	// memory meanwhile.
	stateTimeout = 10 * time.Minute
	// admissionWait is how long a stream waits for its turn to be sent the whole topology,
	// admissionHold how long it keeps others waiting: an edge with a slow line then goes on without
	// holding others up.
	admissionWait = 10 * time.Second
	admissionHold = 5 * time.Second
	// aheadWait is how long a replica that is behind an edge may take to reach it.
	aheadWait = 5 * time.Second
)

// cursor is where a stream stands. Only the sender uses it.
type cursor struct {
	came   int64           // the last step of the feed when the edge came
	owes   bool            // the edge waits to hear that nothing is missing
	pos    int64           // everything up to this revision of the feed was sent
	sent   int64           // the revision that the edge has when it has applied everything sent; 0 before it has any
	digest topology.Digest // the digest there, if known
	known  bool
	asOf   time.Time // of the last bookmark
}

// sendAsks sends the questions that wait.
func (st *stream) sendAsks() error {
	asks := st.questions()
	for {
		select {
		case ask := <-asks:
			if err := st.message("ask", &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Ask{Ask: ask}}); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (st *stream) welcome() error {
	settings, err := st.readSettings()
	if err != nil {
		return err
	}
	if err := st.makePoolKeys(); err != nil {
		return err
	}
	st.keys = st.svc.cfg.Store.EdgeKeys(st.pool())
	keyring, err := keyringOf(st.keys)
	if err != nil {
		return err
	}
	return st.message("welcome", &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Welcome{Welcome: &edgev1.Welcome{
		Epoch:    st.history.Epoch,
		Target:   st.svc.cfg.Feed.Revision(),
		Server:   st.svc.cfg.Server,
		Settings: settings,
		Keyring:  keyring,
	}}})
}

// view is the feed as it stands, as long as it is the history that the stream is about.
func (st *stream) view() (*feed.View, error) {
	view := st.svc.cfg.Feed.View()
	if view.History != st.history {
		return nil, errHistory
	}
	return view.In(st.pool()), nil
}

// limit is how far the edge may go in the history that the stream is about.
func (st *stream) limit() (rollout.Limit, error) {
	limit := st.svc.cfg.Rollout.Limit(st.hello.GetRegion())
	if limit.First != nil {
		if at := max(st.cursor.pos, st.have()); at == 0 || at >= limit.First.Last() {
			limit.View = limit.First
		}
	}
	if limit.View == nil {
		_, err := st.view()
		return limit, err
	}
	if limit.View.History != st.history {
		return limit, errHistory
	}
	limit.View = limit.View.In(st.pool())
	return limit, nil
}

// start puts the cursor where the agent stands, or sends the full state when that is not a place in
// this history.
func (st *stream) start(ctx context.Context) error {
	view, err := st.view()
	if err != nil {
		return err
	}
	st.cursor.came = view.Last()
	reason, err := st.resume(ctx)
	if err != nil {
		return err
	}
	if reason != "" {
		return st.full(ctx, reason)
	}
	have := st.hello.GetHave().GetRevision()
	st.cursor.sent = have
	st.win.resume(have, st.cursor.known)
	if st.cursor.known {
		st.svc.cfg.Fleet.Reached(&st.conn, have)
	}
	st.begin()
	return nil
}

// resume places the cursor, or says why that is not possible. Where the digest at the agent's
// revision is not known, the state that follows shows whether the agent has what it should: its
// digest does not fit otherwise.
func (st *stream) resume(ctx context.Context) (reason string, err error) {
	have := st.hello.GetHave()
	switch {
	case have.GetRevision() == 0:
		return "new", nil
	case have.GetEpoch() != st.history.Epoch:
		return "epoch", nil
	}
	// An agent with the same state may be ahead all the same: steps up to its revision would be old
	// to it.
	ahead, err := st.ahead(ctx, have.GetRevision())
	if err != nil {
		return "", err
	}
	if ahead {
		st.distrust()
		return "ahead", nil
	}
	view, err := st.view()
	if err != nil {
		return "", err
	}
	digest := st.hello.GetDigest()
	if string(view.Digest[:]) == string(digest) {
		// The same state, however it came about: nothing to send.
		st.cursor.pos, st.cursor.digest, st.cursor.known = view.Revision, view.Digest, true
		return "", nil
	}
	if want, known := view.DigestAt(have.GetRevision()); known {
		if string(want[:]) != string(digest) {
			st.distrust()
			st.svc.metrics.resyncs.WithLabelValues("hello").Inc()
			return "digest", nil
		}
		st.cursor.digest, st.cursor.known = want, true
	} else if !view.Keeps(have.GetRevision()) {
		return "history", nil
	}
	st.cursor.pos = have.GetRevision()
	return "", nil
}

// ahead reports whether the agent is at a revision that etcd has never reached, as when etcd lost
// its last writes. A replica that is merely behind catches up first, so that no edge goes back
// within an epoch.
func (st *stream) ahead(ctx context.Context, revision int64) (bool, error) {
	f := st.svc.cfg.Feed
	if f.Revision() >= revision {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, aheadWait)
	defer cancel()
	current, err := st.svc.cfg.Store.Revision(ctx)
	if err == nil && current < revision {
		return true, nil
	}
	if err == nil {
		err = f.WaitRevision(ctx, revision)
	}
	if err != nil {
		return false, status.Errorf(
			codes.Unavailable,
			"this control plane is at revision %d, behind the edge's %d: try another",
			f.Revision(),
			revision,
		)
	}
	return false, nil
}

// advance sends what there was to send when it was called, as far as the rollout allows and the
// window has room. For what comes later, and for room, the stream is woken again.
func (st *stream) advance(ctx context.Context) error {
	if err := st.prepare(); err != nil { // also for an edge that the rollout holds back
		return err
	}
	target := int64(-1)
	for {
		limit, err := st.limit()
		if err != nil {
			return err
		}
		if reason := st.takeResync(); reason != "" {
			st.svc.metrics.resyncs.WithLabelValues(reason).Inc()
			if err := st.message("resync",
				&edgev1.SyncResponse{Message: &edgev1.SyncResponse_Resync{Resync: &edgev1.Resync{
					Reason: "the digests differ",
				}}}); err != nil {
				return err
			}
			if err := st.full(ctx, "resync"); err != nil {
				return err
			}
		}
		if limit.View == nil {
			return nil
		}
		if target < 0 {
			target = limit.View.Last()
		}
		if st.cursor.pos >= min(target, limit.View.Last()) {
			st.pass(limit.View)
			return nil
		}
		if !st.win.open() {
			return nil
		}
		if err := st.next(ctx, limit.View); err != nil {
			return err
		}
	}
}

// pool is that of the edge, empty for one that is sent everything.
func (st *stream) pool() string {
	if st.edge == nil {
		return ""
	}
	return st.edge.Pool
}

// pass moves the cursor to the view's revision when nothing up to there is for the edge's pool. The
// edge already has what it should have there, so waits for that revision end without the next
// bookmark.
func (st *stream) pass(view *feed.View) {
	if st.pool() == "" || st.cursor.pos < view.Last() || view.Revision <= st.cursor.pos {
		return
	}
	st.cursor.pos = view.Revision
	if reached := st.win.bookmark(view.Revision); reached > 0 {
		st.svc.cfg.Fleet.Reached(&st.conn, reached)
	}
}

// next sends all that the edge is behind as one step, or one state for many. Where that would be
// too large for a message, or a deletion may be forgotten, it sends the first step alone.
func (st *stream) next(ctx context.Context, view *feed.View) error {
	steps, known := view.After(st.cursor.pos)
	keeps := view.Keeps(st.cursor.pos)
	if known && keeps && len(steps) <= conflateAfter {
		if step := view.Merge(st.cursor.pos); step != nil {
			return st.live(step, step.Live(st.cursor.sent))
		}
	}
	if known && (len(steps) <= conflateAfter || !keeps) {
		if live := frame(steps[0].Live(st.cursor.sent)); live != nil {
			return st.live(steps[0], live)
		}
	}
	if keeps {
		st.svc.metrics.catchUps.Inc()
		return st.state(ctx, view, st.cursor.pos)
	}
	return st.full(ctx, "history")
}

func (st *stream) live(step *feed.Step, live frame) error {
	if err := st.prepare(); err != nil {
		return err
	}
	st.cursor.pos, st.cursor.sent, st.cursor.digest, st.cursor.known = step.Revision, step.Revision, step.Digest, true
	st.win.add(unit{revision: step.Revision, bytes: live.size(), seen: step.Seen})
	return st.frame("live", live)
}

// full sends the whole topology.
func (st *stream) full(ctx context.Context, reason string) error {
	release, err := st.svc.admit(ctx)
	if err != nil {
		return err
	}
	defer release()
	view, err := st.wholeView(ctx)
	if err != nil {
		return err
	}
	st.svc.metrics.fullStates.WithLabelValues(reason).Inc()
	st.rewritten = reason == "ahead" || reason == "digest" || reason == "resync"
	return st.state(ctx, view, 0)
}

// wholeView is the topology that the edge is sent whole: as far as the rollout allows, but not
// behind where the edge is. Where that is not known, it waits for the rollout to change.
func (st *stream) wholeView(ctx context.Context) (*feed.View, error) {
	for {
		limit, err := st.limit()
		switch {
		case err != nil:
			return nil, err
		case limit.View == nil:
		case limit.View.Revision < max(st.cursor.pos, st.have()):
			return st.view()
		default:
			return limit.View, nil
		}
		select {
		case <-limit.Changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// have is the revision of this history that the agent came with.
func (st *stream) have() int64 {
	if st.hello.GetHave().GetEpoch() != st.history.Epoch {
		return 0
	}
	return st.hello.GetHave().GetRevision()
}

// state sends what has changed after a revision, from 0 everything. It is compressed once for all
// edges that need it at about the same time, so it may end at a step from before the edge came. The
// steps after that follow.
func (st *stream) state(ctx context.Context, view *feed.View, from int64) error {
	s := view.State(from)
	if !st.hello.GetAcceptsZstd() || s.Bytes < compressFrom {
		return st.chunks(ctx, s, s.Chunks())
	}
	shared, release := st.svc.cfg.Feed.Share(view, from, max(st.cursor.pos, st.have()))
	defer release()
	return st.chunks(ctx, shared.State, shared.Chunks())
}

// chunks sends a state whole, whatever the window: its chunks are acknowledged together.
func (st *stream) chunks(ctx context.Context, s *feed.State, chunks iter.Seq[[]byte]) error {
	if err := st.prepare(); err != nil {
		return err
	}
	deadline := st.svc.now().Add(stateTimeout)
	st.win.add(unit{revision: s.Target, bytes: int(s.Bytes), full: s.Full})
	st.begin()
	begin := &edgev1.Begin{
		Full: s.Full, Target: s.Target, ApproxChanges: s.Changes, ApproxBytes: s.Bytes,
		Rewritten:   s.Full && st.rewritten,
		AllowShrink: s.Full && (st.svc.cfg.AllowShrink || st.svc.cfg.Store.Succeeds(st.hello.GetHave().GetEpoch())),
	}
	if !s.Full {
		begin.From = st.cursor.sent
	}
	if err := st.message("begin", &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Begin{Begin: begin}}); err != nil {
		return err
	}
	for chunk := range chunks {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if st.svc.now().After(deadline) {
			return errSlow
		}
		if err := st.frame("chunk", frame{chunk}); err != nil {
			return err
		}
	}
	st.cursor.pos, st.cursor.sent, st.cursor.digest, st.cursor.known = s.Target, s.Target, s.Digest, true
	return st.message("end", &edgev1.SyncResponse{Message: &edgev1.SyncResponse_End{End: &edgev1.End{
		Target: s.Target, Digest: s.Digest[:],
	}}})
}

// behind reports whether the edge has yet to be sent changes from before it connected. Callers of
// earlier purges got the answer that the edge was away, so the edge has to receive those purges
// before a bookmark says that nothing is missing.
func (st *stream) behind(view *feed.View) bool {
	return view != nil && st.cursor.pos < min(st.cursor.came, view.Last())
}

// emptyBookmark has no revision: it only shows that the stream is alive.
var emptyBookmark = &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Bookmark{Bookmark: &edgev1.Bookmark{}}}

// bookmark sends the edge the revision that it has after everything sent, and when that was known
// to be the newest.
func (st *stream) bookmark(view *feed.View) error {
	if err := st.prepare(); err != nil {
		return err
	}
	c := &st.cursor
	if c.owes = st.behind(view); c.owes {
		return st.message("bookmark", emptyBookmark)
	}
	if view == nil || c.pos > view.Revision {
		return st.sendBookmark() // the rollout holds edges before where this one is
	}
	if c.pos >= view.Last() {
		c.pos = max(c.pos, view.Revision)
		c.sent, c.digest, c.known, c.asOf = max(c.sent, view.Revision), view.Digest, true, view.AsOf
	}
	// An edge that is behind stands at what was newest until the next step was seen.
	if since := view.BehindSince(c.pos); since.After(c.asOf) {
		c.asOf = since
	}
	reached := st.win.bookmark(c.sent)
	if reached > 0 {
		st.svc.cfg.Fleet.Reached(&st.conn, reached)
	}
	return st.sendBookmark()
}

// sendBookmark sends the bookmark of the cursor.
func (st *stream) sendBookmark() error {
	c := &st.cursor
	f, err := st.svc.bookmarks.frame(position{c.sent, c.digest, c.known, c.asOf})
	if err != nil {
		return err
	}
	return st.frame("bookmark", f)
}

// cutOff reports whether this control plane has not been in step with etcd for cutOffAfter.
func (s *Service) cutOff() bool {
	view := s.cfg.Feed.View()
	return view != nil && s.now().Sub(view.AsOf) > s.timing.cutOffAfter
}

// sendOff asks the edge to connect to another control plane, and waits a little for it to leave.
func (st *stream) sendOff(ctx context.Context, reason string) error {
	err := st.message("drain", &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Drain{Drain: &edgev1.Drain{
		Reason: reason, RetryAfter: durationpb.New(time.Second + rand.N(4*time.Second)),
	}}})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(drainGrace):
		return errDrained
	}
}

// message sends what is for this stream alone.
func (st *stream) message(kind string, m *edgev1.SyncResponse) error {
	return st.write(kind, m, proto.Size(m))
}

// frame sends what many streams share.
func (st *stream) frame(kind string, f frame) error { return st.write(kind, f, f.size()) }

func (st *stream) write(kind string, m any, size int) error {
	st.sendFrom.Store(st.svc.now().UnixNano())
	err := st.rpc.SendMsg(m)
	st.sendFrom.Store(0)
	if err != nil {
		return err
	}
	st.svc.metrics.frames.WithLabelValues(kind).Inc()
	st.svc.metrics.bytes.Add(float64(size))
	return nil
}

// admit waits for a turn to send the whole topology. The turn ends when release is called, or a
// little later by itself.
func (s *Service) admit(ctx context.Context) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timing.admissionWait)
	defer cancel()
	if err := s.full.Acquire(ctx, 1); err != nil {
		if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
			return nil, cause
		}
		return nil, errBusy
	}
	early := time.AfterFunc(admissionHold, func() { s.full.Release(1) })
	return func() {
		if early.Stop() {
			s.full.Release(1)
		}
	}, nil
}
