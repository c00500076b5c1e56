package admincli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// Progress is a line on a terminal that says how far a transfer is. Elsewhere it is silent.
type Progress struct {
	w    io.Writer
	what string

	mu      sync.Mutex
	total   int64 // 0 while unknown.
	sent    int64
	start   time.Time
	printed time.Time
}

// progressInterval is often enough to look alive and rare enough to cost nothing.
const progressInterval = 200 * time.Millisecond

// NewProgress returns one that writes to w, if that is a terminal; what is transferred stands
// before it.
func NewProgress(w io.Writer, what string) *Progress {
	p := &Progress{w: io.Discard, what: what, start: time.Now()}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.w = w
	}
	return p
}

// Expect counts n more bytes of the total.
func (p *Progress) Expect(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total += n
}

// Add counts n more bytes.
func (p *Progress) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent += n
	if now := time.Now(); now.Sub(p.printed) >= progressInterval {
		p.printed = now
		fmt.Fprintf(p.w, "\r\x1b[K%s", p.line(now))
	}
}

// Done clears the line.
func (p *Progress) Done() { fmt.Fprint(p.w, "\r\x1b[K") }

func (p *Progress) line(now time.Time) string {
	rate := int64(float64(p.sent) / max(now.Sub(p.start).Seconds(), 0.001))
	if p.total == 0 {
		return fmt.Sprintf("%s  %s, %s/s", p.what, ByteSize(p.sent), ByteSize(rate))
	}
	return fmt.Sprintf("%s  %d%% of %s, %s/s", p.what, p.sent*100/p.total, ByteSize(p.total), ByteSize(rate))
}
