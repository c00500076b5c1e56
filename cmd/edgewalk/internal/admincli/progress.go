package admincli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress is a line on a terminal that says how far a transfer is. Elsewhere it is silent.
type progress struct {
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

func newProgress(w io.Writer, what string) *progress {
	p := &progress{w: io.Discard, what: what, start: time.Now()}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.w = w
	}
	return p
}

// expect counts n more bytes of the total.
func (p *progress) expect(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total += n
}

// add counts n more bytes.
func (p *progress) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent += int64(n)
	if now := time.Now(); now.Sub(p.printed) >= progressInterval {
		p.printed = now
		fmt.Fprintf(p.w, "\r\x1b[K%s", p.line(now))
	}
}

// done clears the line.
func (p *progress) done() { fmt.Fprint(p.w, "\r\x1b[K") }

func (p *progress) line(now time.Time) string {
	rate := int64(float64(p.sent) / max(now.Sub(p.start).Seconds(), 0.001))
	if p.total == 0 {
		return fmt.Sprintf("%s  %s, %s/s", p.what, byteSize(p.sent), byteSize(rate))
	}
	return fmt.Sprintf("%s  %d%% of %s, %s/s", p.what, p.sent*100/p.total, byteSize(p.total), byteSize(rate))
}
