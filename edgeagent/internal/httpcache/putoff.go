package httpcache

import (
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/socket"
)

// What is left to do of a fill when its result is published is put off until the first client was
// sent what came with the head, because even to wake a goroutine takes time that this client would
// wait for. That is for putOffTime at most, however slow the client is: others read the file too.
const putOffTime = 100 * time.Millisecond

// fewFills is how many fills may be under way when the first client is let run before a file is
// stored. That shortens the client's wait while the processors have little else to do; among many
// requests it takes a tenth more of their time (go run ./bench miss).
const fewFills = 8

// putOffs are the fills that were put off in the last putOffTime.
type putOffs struct {
	mu    sync.Mutex
	fills []*fill
}

func (p *putOffs) add(f *fill) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fills = append(p.fills, f)
	if len(p.fills) == 1 {
		time.AfterFunc(putOffTime, p.goOn)
	}
}

func (p *putOffs) goOn() {
	p.mu.Lock()
	fills := p.fills
	p.fills = nil
	p.mu.Unlock()
	for _, f := range fills {
		f.goOn()
	}
}

// putOff does what is left to do once goOn is called.
func (f *fill) putOff() {
	f.mu.Lock()
	f.later = true
	f.mu.Unlock()
	f.c.putOffs.add(f)
}

// goOn begins what was put off, if it has not begun.
func (f *fill) goOn() {
	f.mu.Lock()
	later := f.later
	f.later = false
	f.mu.Unlock()
	if later {
		if f.c.fillPlaces.Taken() <= fewFills {
			socket.Yield() // to the client, which has the beginning now
		}
		go func() {
			growStack(false)
			f.finish(true)
		}()
	}
}
