package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// maxCrashes is how many processes may end while they apply one step before the step is
	// refused.
	maxCrashes = 2
	// crashesSize is the size of the file, so that each write replaces the one before.
	crashesSize = 1024
	// maxRefusedSpans bounds the steps that are refused at a time.
	maxRefusedSpans = 5
)

// span is the steps after From up to To of an epoch.
type span struct {
	Epoch string `json:"epoch"`
	From  int64  `json:"from"`
	To    int64  `json:"to"`
	// Crashes counts the processes that ended while they applied it.
	Crashes int `json:"crashes,omitempty"`
}

func (s *span) holds(epoch string, revision int64) bool {
	return s.Epoch == epoch && s.From < revision && revision <= s.To
}

// crashes remembers across processes which step was being applied, so that a step that ends the
// process each time is refused instead of keeping the edge down. Before a step is applied it is
// written down, without fsync: that outlives the process, and a power cut is no crash. Another
// version of the agent tries once what the one before refused.
type crashes struct {
	file *os.File // nil where the folder cannot be written
	held struct { // what the file holds
		Version string `json:"version"`
		// Applying is what is being applied, Suspect what a process before this one was applying
		// when it ended.
		Applying *span  `json:"applying,omitempty"`
		Suspect  *span  `json:"suspect,omitempty"`
		Refused  []span `json:"refused,omitempty"`
		// Retried is what another version of the agent refused, and this one tries.
		Retried []span `json:"retried,omitempty"`
	}
}

// openCrashes reads what the processes before this one have left in a state folder.
func openCrashes(dir, version string, log *slog.Logger) *crashes {
	c := new(crashes)
	var err error
	if c.file, err = os.OpenFile(filepath.Join(dir, "crashes"), os.O_RDWR|os.O_CREATE, state.FileMode); err != nil {
		c.file = nil // taking its lock reports what is wrong with the folder
		return c
	}
	text := make([]byte, crashesSize)
	n, _ := c.file.ReadAt(text, 0)
	_ = json.Unmarshal(text[:n], &c.held) // what cannot be read counts as empty
	if at := c.held.Applying; at != nil {
		log.Warn("the process before this one ended while it applied a step", "from", at.From, "to", at.To)
		c.crashed(at)
	}
	if c.held.Version != version {
		c.held.Version, c.held.Refused, c.held.Retried = version, nil, append(c.held.Retried, c.held.Refused...)
	}
	c.write()
	return c
}

// crashed records that a process ended while it applied the steps of at. The steps that two such
// processes were applying are refused.
func (c *crashes) crashed(at *span) {
	c.held.Applying = nil
	if len(c.held.Retried) > 0 {
		c.held.Refused, c.held.Retried = append(c.held.Refused, c.held.Retried...), nil
		return
	}
	next := &span{Epoch: at.Epoch, From: at.From, To: at.To, Crashes: 1}
	if was := c.held.Suspect; was != nil && was.Epoch == at.Epoch && max(was.From, at.From) < min(was.To, at.To) {
		next = &span{Epoch: at.Epoch, From: max(was.From, at.From), To: min(was.To, at.To), Crashes: was.Crashes + 1}
	}
	c.held.Suspect = next
	// A step from revision 0 is tried again each time, because there is no earlier state to keep.
	if next.Crashes < maxCrashes || next.From == 0 {
		return
	}
	c.held.Suspect = nil
	c.held.Refused = append(c.held.Refused, *next)
}

// begin writes down that a step is being applied.
func (c *crashes) begin(epoch string, from, to int64) {
	c.held.Applying = &span{Epoch: epoch, From: from, To: to}
	c.write()
}

// end writes down that the process did not crash while it applied the step.
func (c *crashes) end() {
	if s, at := c.held.Suspect, c.held.Applying; s != nil && at != nil && at.holds(s.Epoch, s.To) {
		c.held.Suspect = nil
	}
	c.held.Applying = nil
	c.write()
}

// loaded writes down that the process did not crash while it applied what is on disk.
func (c *crashes) loaded() {
	if c.held.Retried != nil {
		c.held.Retried = nil
		c.write()
	}
}

func (c *crashes) write() {
	if c.file == nil {
		return
	}
	if more := len(c.held.Refused) - maxRefusedSpans; more > 0 {
		c.held.Refused = c.held.Refused[more:]
	}
	text, err := json.Marshal(&c.held)
	if err != nil || len(text) > crashesSize {
		return
	}
	padded := append(text, bytes.Repeat([]byte{' '}, crashesSize-len(text))...)
	_, _ = c.file.WriteAt(padded, 0) // if this fails, a step that crashes the process is tried once more
}

// refuse returns the refusal of a change that crashed the agent, nil for a change to apply.
func (c *crashes) refuse(epoch string, ch state.Change) *topologyv1.Rejected {
	for i := range c.held.Refused {
		if s := &c.held.Refused[i]; s.holds(epoch, ch.Mod) {
			return &topologyv1.Rejected{Key: ch.Key, Revision: ch.Mod, Reason: fmt.Sprintf(
				"the agent crashed %d times while it applied revision %d; it goes on with what it had before", s.Crashes, s.To)}
		}
	}
	return nil
}

func (c *crashes) close() {
	if c.file != nil {
		c.file.Close()
	}
}
