package issuer

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// faultsInRow is the number of faults after which an issuer gets no orders for a while.
const faultsInRow = 3

// downFor are the times for which an issuer gets no orders: the first, second and further times in
// a row.
var downFor = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour}

// issuerState is what `acme/buckets/{issuer}` holds: how much of an issuer's rate limit is used,
// and whether it fails. The next leader continues with it, and every control plane can show it.
type issuerState struct {
	// Orders is the bucket of new orders.
	Orders time.Time `json:"orders,omitzero"`
	// Faults is the number of faults in a row. Downs is how often it got no orders for a while
	// since its last success.
	Faults int `json:"faults,omitempty"`
	Downs  int `json:"downs,omitempty"`
	// Until is when it gets orders again. Since is when that was decided. Limited says that it has
	// asked for the pause.
	Until   time.Time `json:"until,omitzero"`
	Since   time.Time `json:"since,omitzero"`
	Limited bool      `json:"limited,omitempty"`
	// Message is the last failure.
	Message string `json:"message,omitempty"`
	// Skew describes how wrong the clock of the control plane that leads is, for people. Empty: it
	// is right.
	Skew string `json:"skew,omitempty"`
	// Running is the number of orders under way, Queued that of names that wait for one.
	Running int `json:"running,omitempty"`
	Queued  int `json:"queued,omitempty"`
}

// issuer is an authority with the state that the control plane that leads keeps of it. Its methods
// may be called concurrently.
type issuer struct {
	*client
	limits limit

	mu      sync.Mutex
	state   issuerState
	written issuerState
	running int
}

func bucketsName(issuer string) string { return "buckets/" + issuer }

func readState(ctx context.Context, s *store.Store, issuer string) (p issuerState, err error) {
	b, err := s.ACME(ctx, bucketsName(issuer))
	if err != nil || b == nil {
		return p, err
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("read acme/%s: %w", bucketsName(issuer), err)
	}
	return p, nil
}

// write stores the state if it has changed.
func (iss *issuer) write(ctx context.Context, fence *store.Fence, queued int) error {
	skew := iss.skewText()
	iss.mu.Lock()
	iss.state.Running, iss.state.Queued, iss.state.Skew = iss.running, queued, skew
	next := iss.state
	same := next == iss.written
	iss.mu.Unlock()
	if same {
		return nil
	}
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := iss.store.PutACME(ctx, fence, bucketsName(iss.Name), value); err != nil {
		return err
	}
	iss.mu.Lock()
	iss.written = next
	iss.mu.Unlock()
	return nil
}

// wait returns how long to wait until another order may be sent to the issuer, and whether a rate
// limit is the reason rather than failures. After failures, one order is tried first.
func (iss *issuer) wait(now time.Time) (wait time.Duration, limited bool) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	if left := iss.state.Until.Sub(now); left > 0 && !clockAhead(iss.state.Since, now) {
		return left, iss.state.Limited
	}
	if iss.state.Faults >= faultsInRow && iss.running > 0 {
		return downFor[0], iss.state.Limited
	}
	return bucket{iss.state.Orders}.wait(iss.limits, now), true
}

// room returns how many orders may be sent to the issuer now; see wait.
func (iss *issuer) room(now time.Time) int {
	if wait, _ := iss.wait(now); wait > 0 {
		return 0
	}
	iss.mu.Lock()
	defer iss.mu.Unlock()
	if iss.state.Faults >= faultsInRow {
		return 1
	}
	return iss.limits.count - bucket{iss.state.Orders}.used(iss.limits, now)
}

// take counts a new order, unless it has to wait.
func (iss *issuer) take(now time.Time) bool {
	if wait, _ := iss.wait(now); wait > 0 {
		return false
	}
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.state.Orders = bucket{iss.state.Orders}.take(iss.limits, now).empty
	return true
}

// begin and end count orders that are under way.
func (iss *issuer) begin() { iss.count(1) }
func (iss *issuer) end()   { iss.count(-1) }

func (iss *issuer) count(by int) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.running += by
}

// succeeded records a success of the issuer, which ends its faults.
func (iss *issuer) succeeded() {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.state.Faults, iss.state.Downs, iss.state.Message = 0, 0, ""
	iss.state.Until, iss.state.Since, iss.state.Limited = time.Time{}, time.Time{}, false
}

// failed records a fault of the issuer. It reports whether the issuer gets no orders for a while.
func (iss *issuer) failed(f fault, now time.Time) (down bool) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	s := &iss.state
	if clockAhead(s.Since, now) {
		s.Until, s.Since = time.Time{}, time.Time{}
	}
	s.Faults++
	s.Message = f.text
	switch {
	case f.everywhere && f.after > 0: // it says for how long
		s.Until, s.Since, s.Limited, s.Faults = now.Add(f.after), now, true, max(s.Faults, faultsInRow)
	case s.Faults >= faultsInRow, f.noAccount:
		s.Faults = max(s.Faults, faultsInRow)
		s.Until, s.Since, s.Limited = now.Add(downFor[min(s.Downs, len(downFor)-1)]), now, false
		s.Downs++
	}
	return s.Until.After(now)
}
