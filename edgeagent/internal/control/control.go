package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Control keeps the table in step with a control plane.
type Control struct {
	cfg     Config
	metrics *metrics
	state   *state.Folder
	keys    *keys
	crashes *crashes
	// addresses are in this agent's order; next is the one to try next.
	addresses []string
	next      int

	// gaps counts the gaps that were found since a step was last applied. gaps and unreadable are
	// used by the goroutine that applies steps alone: by New, and then by Run.
	gaps int
	// stray says that the agent holds something else than the control plane's history had at that
	// revision: the full state that is due does not continue it. It is used by the goroutine that
	// applies steps alone.
	stray bool
	// unreadable holds, by key, what was received under a malformed key of a known kind, or crashed
	// the agent.
	unreadable map[string]*topologyv1.Rejected

	// lost says that the files have to be written anew: the next session asks for everything.
	lost     atomic.Bool
	settings *atomic.Pointer[edgev1.Welcome_Settings] // see Config.Settings

	// mu guards what Status returns, and the session under way.
	mu      sync.Mutex
	status  Status
	digest  topology.Digest // at status.Revision
	session *session
}

// New loads the last good topology from the state folder and shows it to requests, so that an agent
// serves before it has reached a control plane. Nothing in the folder is an error but another agent
// that uses it.
func New(cfg Config) (*Control, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	folder, err := state.Open(cfg.StateDir, cfg.Logger)
	if err != nil {
		return nil, err
	}
	held, err := openKeys(cfg.StateDir, cfg.StateKeyFile, cfg.Logger)
	if err != nil {
		folder.Close()
		return nil, err
	}
	c := &Control{
		cfg: cfg, settings: cfg.Settings, state: folder, keys: held,
		crashes:    openCrashes(cfg.StateDir, cfg.Version, cfg.Logger),
		unreadable: make(map[string]*topologyv1.Rejected),
	}
	c.addresses = slices.Clone(cfg.Addresses)
	rand.Shuffle(len(c.addresses), func(i, j int) { c.addresses[i], c.addresses[j] = c.addresses[j], c.addresses[i] })
	c.settings.Store(new(edgev1.Welcome_Settings))
	c.metrics = newMetrics(c)
	if err := cfg.Registerer.Register(c.metrics); err != nil {
		folder.Close()
		c.crashes.close()
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	c.load()
	return c, nil
}

func (c *Control) load() {
	settings, asOf, ok := c.state.Load(func(s state.Step) error {
		_, err := c.apply(s)
		return err
	})
	c.crashes.loaded()
	if !ok {
		return
	}
	c.settings.Store(settings)
	c.inStep(asOf)
	c.publish()
	root, at := c.cfg.Table.Root(), c.state.At()
	c.cfg.Logger.Info("topology loaded from disk", "epoch", state.Common(at.Epoch), "revision", at.Revision, "accounts",
		root.Accounts(), "domains", root.Domains())
}

// Run stays connected until ctx ends, which is its only end. It is called once. It leaves the state
// folder for others.
func (c *Control) Run(ctx context.Context) error {
	defer c.state.Close()
	defer c.crashes.close()
	defer c.cfg.Registerer.Unregister(c.metrics)
	flushing, stop := context.WithCancel(context.Background())
	var flusher sync.WaitGroup
	flusher.Go(func() { c.state.Flush(flushing, c.acknowledge, c.rewrite) })
	defer flusher.Wait()
	defer stop()
	failures := 0
	for ctx.Err() == nil {
		address := c.addresses[c.next%len(c.addresses)]
		c.next++
		e := c.connect(ctx, address)
		if ctx.Err() != nil {
			break
		}
		var wait time.Duration
		wait, failures = c.cfg.Backoff.wait(e, failures, len(c.addresses) > 1)
		why, fix := e.words(c.cfg.TLS != nil)
		about := []any{"address", address, "why", why, "retry_in", wait.Round(time.Millisecond)}
		if fix != "" {
			about = append(about, "fix", fix)
			why += ": " + fix
		}
		c.parted(address + ": " + why)
		c.cfg.Logger.Log(ctx, e.level(), "stream to the control plane ended", about...)
		sleep(ctx, wait)
	}
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// rewrite makes the next session ask for everything, because the files lack what changed while the
// disk was broken.
func (c *Control) rewrite() {
	c.lost.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != nil {
		c.session.cancel(resync("journal"))
	}
}

// have is the position to resume from, nil for nothing.
func (c *Control) have() *edgev1.Position {
	at := c.state.At()
	if at.Epoch == "" || c.lost.Load() {
		return nil
	}
	return &edgev1.Position{Epoch: state.Common(at.Epoch), Revision: at.Revision}
}

// apply hands a step to the table and returns the resources that it refused.
func (c *Control) apply(s state.Step) ([]*topologyv1.Rejected, error) {
	var malformed []*topologyv1.Rejected
	if s.Full {
		clear(c.unreadable)
	}
	from := int64(0)
	epoch := state.Common(s.At.Epoch)
	if root := c.cfg.Table.Root(); state.Common(root.Epoch()) == epoch {
		from = root.Revision()
	}
	c.crashes.begin(epoch, from, s.At.Revision)
	defer c.crashes.end()
	result, err := c.cfg.Table.Apply(route.Step{
		Full:       s.Full,
		Epoch:      s.At.Epoch,
		Revision:   s.At.Revision,
		SharedHost: s.Settings.GetSharedHost(),
		Ring:       c.keys.ring,
		Records: func(yield func(topology.Record, error) bool) {
			for ch, err := range s.Changes {
				if err != nil {
					yield(topology.Record{}, err)
					return
				}
				key, ok, rejected := c.parse(epoch, ch)
				if rejected != nil {
					malformed = append(malformed, rejected)
				}
				if ok && key.Kind == topology.KindOriginSecrets {
					c.keys.note(ch.Key, ch.Value)
				}
				if ok &&
					!yield(
						topology.Record{Key: key, CreateRevision: ch.Create, ModRevision: ch.Mod, Value: ch.Value}, nil,
					) {
					return
				}
			}
		},
	})
	return append(result.Rejected, malformed...), err
}

// parse reads a key. One of a kind that this agent does not know is skipped: a newer control plane
// may have more.
func (c *Control) parse(epoch string, ch state.Change) (key topology.Key, ok bool, rejected *topologyv1.Rejected) {
	key, err := topology.ParseKey(ch.Key)
	if err == nil {
		if rejected := c.crashes.refuse(epoch, ch); rejected != nil {
			c.unreadable[ch.Key] = rejected
			return key, false, rejected
		}
		delete(c.unreadable, ch.Key)
		return key, true, nil
	}
	kind, _, _ := strings.Cut(ch.Key, "/")
	if !slices.Contains(topology.Kinds(), topology.Kind(kind)) {
		return key, false, nil
	}
	if ch.Value == nil {
		delete(c.unreadable, ch.Key)
		return key, false, nil
	}
	rejected = &topologyv1.Rejected{Key: ch.Key, Revision: ch.Mod, Reason: err.Error()}
	c.unreadable[ch.Key] = rejected
	return key, false, rejected
}

// rejected is every resource that is not in effect as received.
func (c *Control) rejected() []*topologyv1.Rejected {
	all := c.cfg.Table.Rejected()
	for _, r := range c.unreadable {
		all = append(all, r)
	}
	return all
}

// ending is how a session ended.
type ending struct {
	err error
	// inStep says that the agent was in step during the session.
	inStep bool
	// ours says that the agent ended it, to ask for a full state.
	ours bool
	// drain is the control plane's request to go, if that ended it.
	drain  *edgev1.Drain
	lasted time.Duration
}

// wait says how long to stay away, and how many failures there have now been in a row.
func (b Backoff) wait(e ending, failures int, elsewhere bool) (time.Duration, int) {
	switch {
	case e.drain != nil:
		wait := rand.N(b.Least)
		if !elsewhere {
			wait += max(0, min(e.drain.GetRetryAfter().AsDuration(), b.Most))
		}
		return wait, 0
	case e.inStep && !e.ours:
		return rand.N(b.Spread), 0
	case e.inStep && e.lasted > b.Most:
		failures = 0
	}
	bound := b.Most
	if failures < 16 {
		bound = min(b.Most, b.Least<<failures)
	}
	return rand.N(bound), failures + 1
}

// errResync ends a session because the agent cannot go on from what it has received.
type errResync struct {
	reason string
	// everything asks for a full state, instead of what is missing.
	everything bool
}

func (e errResync) Error() string { return "the topology has to be sent again: " + e.reason }

func resync(reason string) error { return errResync{reason, true} }

var errDrained = errors.New("the control plane asked to go elsewhere")
