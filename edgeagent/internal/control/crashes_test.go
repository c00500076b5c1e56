package control

import (
	"strings"
	"testing"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// dies waits until a child has ended by itself.
func (c *child) dies(t *testing.T) {
	t.Helper()
	if err := c.cmd.Wait(); err == nil || !strings.Contains(err.Error(), "exit status 9") {
		t.Fatalf("the agent ended with %v", err)
	}
}

// A resource that crashes the agent does so twice. Then the agent goes on with what it had before,
// says what it refuses and applies what follows, also after it was started again. Another version
// of the agent tries it once more.
func TestStepThatCrashesTheAgentIsRefused(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	dir := t.TempDir()
	h := smallHistory()
	c := startChild(t, dir, p.address, "")
	d := p.accept()
	d.send(h.welcome()).send(h.full()...)
	d.persisted(h.revision)
	at := h.revision
	bad := live(at, at+1, h.put("purgeFloors/account-1", &topologyv1.PurgeFloor{StaleBefore: 1}))
	for range maxCrashes {
		if have := d.hello.GetHave().GetRevision(); have != 0 && have != at {
			t.Errorf("the agent resumes from %d, want %d", have, at)
		}
		d.stream.Send(bad)
		c.dies(t)
		c = startChild(t, dir, p.address, "")
		d = p.accept()
		d.send(h.welcome())
	}
	refuses := func(d *dialogue) {
		t.Helper()
		ack := d.ack("that refuses something", func(a *edgev1.Ack) bool { return len(a.GetNacks()) > 0 })
		n := ack.GetNacks()[0]
		if n.GetKey() != "purgeFloors/account-1" || n.GetRevision() != at+1 ||
			!strings.Contains(n.GetReason(), "crashed 2 times") {
			t.Errorf("refused: %v", n)
		}
	}
	d.send(bad)
	refuses(d)
	later := h.account("later")
	d.send(live(at+1, h.revision, later), bookmark(h.revision, h.digest()))
	d.persisted(h.revision)
	c.kill()

	c = startChild(t, dir, p.address, "") // with the step on disk
	d = p.accept()
	if have := d.hello.GetHave().GetRevision(); have != h.revision {
		t.Errorf("the agent resumes from %d, want %d", have, h.revision)
	}
	d.send(h.welcome(), bookmark(h.revision, h.digest()))
	refuses(d)
	c.kill()

	c = startChild(t, dir, p.address, "", "VERSION=2")
	c.dies(t)
	c = startChild(t, dir, p.address, "", "VERSION=2")
	d = p.accept()
	d.send(h.welcome())
	refuses(d)
	// It is over once the resource changes.
	gone := h.drop("purgeFloors/account-1")
	d.send(live(h.revision-1, h.revision, gone))
	d.persisted(h.revision)
	c.kill()
	c = startChild(t, dir, p.address, "", "VERSION=2")
	d = p.accept()
	d.send(h.welcome(), bookmark(h.revision, h.digest()))
	if ack := d.applied(h.revision); len(ack.GetNacks()) > 0 {
		t.Errorf("still refused: %v", ack.GetNacks())
	}
	c.kill()
}
