package issuer

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// faultsInRow is after how many faults an issuer is left alone for a while.
const faultsInRow = 3

// downFor are the times that an issuer is left alone, one after the other as long as it fails.
var downFor = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour}

// page is what `acme/buckets/{issuer}` holds, so that the next leader goes on counting, and every
// control plane can tell.
type page struct {
	// Orders is the bucket of new orders.
	Orders time.Time `json:"orders,omitzero"`
	// Faults are those in a row, and Downs how often it was left alone since it last did well.
	Faults int `json:"faults,omitempty"`
	Downs  int `json:"downs,omitempty"`
	// Until is when it is asked again; Limited says that it wants it so.
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

// book keeps the page of one issuer at the control plane that leads. Its methods may be called at
// the same time.
type book struct {
	*client
	limits limit

	mu      sync.Mutex
	page    page
	written page
	running int
}

func bucketsName(issuer string) string { return "buckets/" + issuer }

func readPage(ctx context.Context, s *store.Store, issuer string) (p page, err error) {
	b, err := s.ACME(ctx, bucketsName(issuer))
	if err != nil || b == nil {
		return p, err
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("read acme/%s: %w", bucketsName(issuer), err)
	}
	return p, nil
}

// write stores the page if it has changed.
func (b *book) write(ctx context.Context, fence *store.Fence, queued int) error {
	skew := b.skewText()
	b.mu.Lock()
	b.page.Running, b.page.Queued, b.page.Skew = b.running, queued, skew
	next := b.page
	same := next == b.written
	b.mu.Unlock()
	if same {
		return nil
	}
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := b.store.PutACME(ctx, fence, bucketsName(b.Name), value); err != nil {
		return err
	}
	b.mu.Lock()
	b.written = next
	b.mu.Unlock()
	return nil
}

// wait is how long to wait until the issuer may be sent another order, and whether that is for a
// limit and not because it fails. One that has failed is tried with one order at first.
func (b *book) wait(now time.Time) (wait time.Duration, limited bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if left := b.page.Until.Sub(now); left > 0 {
		return left, b.page.Limited
	}
	if b.page.Faults >= faultsInRow && b.running > 0 {
		return downFor[0], b.page.Limited
	}
	return bucket{b.page.Orders}.wait(b.limits, now), true
}

// room is how many orders the issuer may be sent now; see wait.
func (b *book) room(now time.Time) int {
	if wait, _ := b.wait(now); wait > 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.page.Faults >= faultsInRow {
		return 1
	}
	return b.limits.count - bucket{b.page.Orders}.used(b.limits, now)
}

// take counts a new order, unless it has to wait.
func (b *book) take(now time.Time) bool {
	if wait, _ := b.wait(now); wait > 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.page.Orders = bucket{b.page.Orders}.take(b.limits, now).empty
	return true
}

// begin and end count orders that are under way.
func (b *book) begin() { b.count(1) }
func (b *book) end()   { b.count(-1) }

func (b *book) count(by int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running += by
}

// well takes in that the issuer does what it is asked.
func (b *book) well() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.page.Faults, b.page.Downs, b.page.Until, b.page.Limited, b.page.Message = 0, 0, time.Time{}, false, ""
}

// failed takes in a fault of the issuer, and reports whether it is left alone for a while.
func (b *book) failed(f fault, now time.Time) (down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.page.Faults++
	b.page.Message = f.text
	switch {
	case f.everywhere && f.after > 0: // it says for how long
		b.page.Until, b.page.Limited, b.page.Faults = now.Add(f.after), true, max(b.page.Faults, faultsInRow)
	case b.page.Faults >= faultsInRow:
		b.page.Until = now.Add(downFor[min(b.page.Downs, len(downFor)-1)])
		b.page.Limited = false
		b.page.Downs++
	}
	return b.page.Until.After(now)
}
