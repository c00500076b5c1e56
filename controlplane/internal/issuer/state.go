package issuer

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// faultsInRow is after how many faults an issuer is sent no orders for a while.
const faultsInRow = 3

// downFor are the times for which an issuer is sent no orders, one after the other as long as it
// fails.
var downFor = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour}

// issuerState is what `acme/buckets/{issuer}` holds: how far the rate limit of an issuer is used,
// and whether it fails. The next leader goes on counting by it, and every control plane can show
// it.
type issuerState struct {
	// Orders is the bucket of new orders.
	Orders time.Time `json:"orders,omitzero"`
	// Faults are those in a row, and Downs how often it was sent no orders for a while because of
	// them, since it last did what it was asked.
	Faults int `json:"faults,omitempty"`
	Downs  int `json:"downs,omitempty"`
	// Until is when it is sent orders again; Limited says that it has asked for the pause.
	Until   time.Time `json:"until,omitzero"`
	Limited bool      `json:"limited,omitempty"`
	// Message is the last failure.
	Message string `json:"message,omitempty"`
	// Skew says how wrong the clock of the control plane that leads is, for people, empty if it is
	// right.
	Skew string `json:"skew,omitempty"`
	// Running and Queued are orders, and names that wait for one.
	Running int `json:"running,omitempty"`
	Queued  int `json:"queued,omitempty"`
}

// issuer is an authority with its state, as the control plane that leads counts it. Its methods may
// be called at the same time.
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

// wait is how long to wait until the issuer may be sent another order, and whether that is for a
// limit and not because it fails. One that has failed is tried with one order at first.
func (iss *issuer) wait(now time.Time) (wait time.Duration, limited bool) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	if left := iss.state.Until.Sub(now); left > 0 {
		return left, iss.state.Limited
	}
	if iss.state.Faults >= faultsInRow && iss.running > 0 {
		return downFor[0], iss.state.Limited
	}
	return bucket{iss.state.Orders}.wait(iss.limits, now), true
}

// room is how many orders the issuer may be sent now; see wait.
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

// succeeded records that the issuer did what it was asked, which ends its faults.
func (iss *issuer) succeeded() {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.state.Faults, iss.state.Downs, iss.state.Message = 0, 0, ""
	iss.state.Until, iss.state.Limited = time.Time{}, false
}

// failed records a fault of the issuer, and reports whether it is sent no orders for a while.
func (iss *issuer) failed(f fault, now time.Time) (down bool) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	s := &iss.state
	s.Faults++
	s.Message = f.text
	switch {
	case f.everywhere && f.after > 0: // it says for how long
		s.Until, s.Limited, s.Faults = now.Add(f.after), true, max(s.Faults, faultsInRow)
	case s.Faults >= faultsInRow, f.noAccount:
		s.Faults = max(s.Faults, faultsInRow)
		s.Until, s.Limited = now.Add(downFor[min(s.Downs, len(downFor)-1)]), false
		s.Downs++
	}
	return s.Until.After(now)
}
