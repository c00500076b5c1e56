package origin

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	// maxTokens bounds how many origins' tokens are kept, at most 70 KiB each and 2 KiB as a rule. Beyond, the older half goes.
	maxTokens = 1 << 12
	// defaultTokenLife is assumed of a token whose issuer does not say how long it lives, maxTokenLife is the longest believed.
	defaultTokenLife = 5 * time.Minute
	maxTokenLife     = 24 * time.Hour
	// A refusal stands for refusedFor, so that a thousand requests do not make a thousand more. An issuer that asks for
	// patience gets it, up to maxTokenPatience.
	refusedFor       = time.Second
	maxTokenPatience = 30 * time.Second
)

var errClosed = errors.New("the client is closed")

// A grant is what an origin's credentials were exchanged for.
type grant struct {
	token string
	// refresh is exchanged for the next token. It may be empty.
	refresh string
	// life is how long the token is good, 0 if its issuer does not say.
	life time.Duration
}

// An exchanger gets a token. refresh is that of the last grant, "" for none.
type exchanger func(ctx context.Context, refresh string) (grant, error)

// tokens holds the tokens of origins, each as long as neither its target nor its credentials change. A token is got once for
// all requests, and anew before it expires, while requests still go by the old one.
type tokens struct {
	now  func() time.Time
	seed maphash.Seed
	// life ends with the client, and the exchanges under way with it.
	life context.Context
	stop context.CancelFunc
	done sync.WaitGroup

	mu         sync.Mutex
	closed     bool
	young, old map[identity]*token
}

// A token is that of one origin.
type token struct {
	mu             sync.Mutex
	grant          grant
	renew, expires time.Time     // when it is to be got anew, and when it is no good any more
	refused        error         // the last exchange's, until then
	refusedUntil   time.Time     //
	running        chan struct{} // closed when the exchange under way ends; nil without one
}

func newTokens(seed maphash.Seed) *tokens {
	t := &tokens{now: time.Now, seed: seed, young: make(map[identity]*token)}
	t.life, t.stop = context.WithCancel(context.Background())
	return t
}

// close ends the exchanges under way and waits for them.
func (t *tokens) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.stop()
	t.done.Wait()
}

func (t *tokens) of(o *topology.Origin) *token {
	id := identityOf(t.seed, o)
	t.mu.Lock()
	defer t.mu.Unlock()
	if found := t.young[id]; found != nil {
		return found
	}
	found := t.old[id]
	if found == nil {
		found = &token{}
	}
	if len(t.young) >= maxTokens/2 {
		t.young, t.old = make(map[identity]*token), t.young
	}
	t.young[id] = found
	return found
}

// get returns the token of o. It waits for an exchange only where there is no token to go by.
func (t *tokens) get(ctx context.Context, o *topology.Origin, deadline time.Time, exchange exchanger) (string, error) {
	tok := t.of(o)
	for {
		value, running, err := t.look(tok, exchange)
		if value != "" || err != nil {
			return value, err
		}
		if err := await(ctx, deadline, running); err != nil {
			return "", err
		}
	}
}

// look returns the token, or why there is none, or what to wait for.
func (t *tokens) look(tok *token, exchange exchanger) (value string, running <-chan struct{}, err error) {
	tok.mu.Lock()
	defer tok.mu.Unlock()
	now := t.now()
	refused := tok.refused != nil && now.Before(tok.refusedUntil)
	if tok.grant.token != "" && now.Before(tok.expires) {
		if !refused && !now.Before(tok.renew) && tok.running == nil {
			t.start(tok, exchange)
		}
		return tok.grant.token, nil, nil
	}
	switch {
	case tok.running != nil:
	case refused:
		return "", nil, tok.refused
	case !t.start(tok, exchange):
		return "", nil, errClosed
	}
	return "", tok.running, nil
}

// start begins an exchange that no request can end, unless the client is closed.
func (t *tokens) start(tok *token, exchange exchanger) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	running, refresh := make(chan struct{}), tok.grant.refresh
	tok.running = running
	t.done.Go(func() {
		defer close(running)
		began := t.now()
		got, err := exchange(t.life, refresh)
		tok.mu.Lock()
		defer tok.mu.Unlock()
		tok.running = nil
		tok.settle(got, err, began, t.now())
	})
	return true
}

// settle takes what an exchange gave. A token is got anew when a fifth of its life is left, and not used in the last
// twentieth: it has to be good when it arrives, by another's clock.
func (tok *token) settle(got grant, err error, began, now time.Time) {
	if err != nil {
		wait := refusedFor
		var refused *tokenError
		if errors.As(err, &refused) {
			wait = min(max(wait, refused.after), maxTokenPatience)
		}
		tok.refused, tok.refusedUntil = err, now.Add(wait)
		return
	}
	life := got.life
	if life <= 0 {
		life = defaultTokenLife
	}
	life = min(life, maxTokenLife)
	tok.grant, tok.refused = got, nil
	tok.renew, tok.expires = began.Add(life/5*4), began.Add(life/20*19)
}

// spoil drops a token that was not accepted, unless another has come since.
func (t *tokens) spoil(o *topology.Origin, value string) {
	tok := t.of(o)
	tok.mu.Lock()
	defer tok.mu.Unlock()
	if tok.grant.token == value {
		tok.grant.token = ""
	}
}

// await waits for running to close.
func await(ctx context.Context, deadline time.Time, running <-chan struct{}) error {
	var late <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-running:
		return nil
	case <-late:
		return errWalkDeadline
	case <-ctx.Done():
		return ctx.Err()
	}
}
