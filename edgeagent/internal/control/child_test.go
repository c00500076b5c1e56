package control

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// The test binary, started with this variable, is an agent: a process that can be killed, or run
// out of disk.
const childVariable = "EDGEWALK_CONTROL_TEST_CHILD"

// runChild reports whether this process is such an agent. It runs until its stdin ends. Each byte
// on stdin raises the limit of file sizes that it may have been started with.
func runChild() bool {
	if os.Getenv(childVariable) == "" {
		return false
	}
	signal.Ignore(syscall.SIGXFSZ) // a write beyond the limit is then an error
	if limit, err := strconv.ParseUint(os.Getenv("LIMIT"), 10, 64); err == nil {
		limitFileSize(limit)
	}
	// A resource that no test of agents that live has ends the process, as a bug would.
	hooks := route.Hooks{Floor: func(string, *topologyv1.PurgeFloor) { os.Exit(9) }}
	c, err := New(Config{
		Addresses: []string{os.Getenv("PEER")}, StateDir: os.Getenv("STATE"), ID: "edge-1",
		Version: os.Getenv("VERSION"), BootID: rand.Text(),
		HTTPAddress: func() string { return "" },
		Table:       route.New(hooks),
		Report:      func() *edgev1.Report { return &edgev1.Report{} },
		Answer:      func(context.Context, *edgev1.Ask) *edgev1.Answer { return nil },
		Logger:      slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Registerer:  prometheus.NewRegistry(),
		Backoff:     Backoff{Least: time.Millisecond, Most: 10 * time.Millisecond, Spread: time.Millisecond},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		b := make([]byte, 1)
		for {
			if _, err := os.Stdin.Read(b); err == io.EOF {
				cancel()
				return
			}
			limitFileSize(1 << 40)
		}
	}()
	c.Run(ctx)
	return true
}

func limitFileSize(n uint64) {
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		panic(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: min(n, was.Max), Max: was.Max}); err != nil {
		panic(err)
	}
}

// child is such a process.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func startChild(t *testing.T, stateDir, peer, limit string, env ...string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"=1", "STATE="+stateDir, "PEER="+peer, "LIMIT="+limit, "VERSION=1")
	cmd.Env = append(cmd.Env, env...)
	if testing.Verbose() {
		cmd.Stderr = os.Stderr
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd, stdin}
	t.Cleanup(c.kill)
	return c
}

func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
	c.stdin.Close()
}

// An acknowledged step is never undone by kill -9, whenever it comes, and what is on disk is always
// a topology that was.
func TestKillNeverUndoesAnAcknowledgedStep(t *testing.T) {
	t.Parallel()
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	p := newPeer(t)
	dir := t.TempDir()
	h := newHistory("e1")
	h.account("acme")
	past := map[int64]string{} // digest by revision
	past[h.revision] = string(h.digest())
	for round := range rounds {
		c := startChild(t, dir, p.address, "")
		d := p.accept()
		have := d.hello.GetHave()
		if round > 0 && have == nil {
			t.Fatalf("round %d: the agent has nothing", round)
		}
		d.send(h.welcome()).send(h.full()...)
		acked := d.applied(h.revision).GetApplied()
		die := time.After(time.Duration(20+round*17) * time.Millisecond)
		for dead := false; !dead; {
			// Steps of many sizes, so that some are killed in the middle of a write or a rotation.
			at := h.revision
			ch := h.putBytes(fmt.Sprint("later/", at%211), slices.Repeat([]byte{byte(at)}, int(at*at%30_000)))
			past[h.revision] = string(h.digest())
			dead = d.stream.Send(live(at, h.revision, ch)) != nil
			for len(d.received) > 0 {
				acked = max(acked, (<-d.received).GetAck().GetApplied())
			}
			select {
			case <-die:
				c.kill()
				dead = true
			default:
			}
		}
		<-d.ended
		for len(d.received) > 0 {
			acked = max(acked, (<-d.received).GetAck().GetApplied())
		}
		a := load(t, dir)
		s := a.Status()
		if s.Revision < acked || past[s.Revision] != a.digestText() {
			t.Fatalf("round %d: at %d with digest %x after it had acknowledged %d", round, s.Revision, a.state.At().Digest, acked)
		}
		a.stop()
	}
}

// A disk that is full stops nothing but durability, and is written anew once there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]string{
		"in the journal":               "4000",
		"in the middle of a snapshot":  "700",
		"before anything was written":  "1",
		"in the header of the journal": "60",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t)
			dir := t.TempDir()
			h := newHistory("e1")
			for i := range 20 {
				h.account(fmt.Sprint("account-", i))
			}
			c := startChild(t, dir, p.address, limit)
			d := p.accept()
			d.send(h.welcome()).send(h.full()...)
			d.applied(h.revision)
			for range 60 {
				at := h.revision
				d.send(live(at, at+1, h.putBytes(fmt.Sprint("later/", at), make([]byte, 50))))
			}
			ack := d.ack("that is not durable",
				func(a *edgev1.Ack) bool { return a.Applied == h.revision && !a.Durable })
			if !slices.Equal(ack.Digest, h.digest()) {
				t.Errorf("digest %x, want %x", ack.Digest, h.digest())
			}
			if _, err := c.stdin.Write([]byte("+")); err != nil {
				t.Fatal(err)
			}
			d.over()
			again := p.accept()
			if again.hello.GetHave() != nil {
				t.Fatalf("resumes from %v though the disk misses steps", again.hello.GetHave())
			}
			again.send(h.welcome()).send(h.full()...)
			again.ack("that is persisted", func(a *edgev1.Ack) bool { return a.Durable && a.Persisted == h.revision })
			c.kill()
			load(t, dir).sees(t, h)
		})
	}
}
