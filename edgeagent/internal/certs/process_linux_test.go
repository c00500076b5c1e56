package certs

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
	"github.com/edgewalk/edgewalk/internal/seal"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// BenchmarkProcess measures an edge agent, as a process of its own, that begins with so many
// domains and their certificates on its disk, and without a control plane:
//
//   - how long after its exec its listener takes connections, and how long until it has served the
//     certificate that lies last in its file,
//   - its resident memory above that of an agent with as many domains and one certificate, after as
//     many handshakes, which are for more certificates than it keeps ready (--cert-cache),
//   - the CPU time of a handshake for a domain whose certificate is on disk, of one for a name that
//     nobody has, in the first and the second half of 10,000, and by how much resident memory has
//     grown meanwhile.
func BenchmarkProcess(b *testing.B) {
	binary := filepath.Join(b.TempDir(), "edgewalk")
	build := exec.CommandContext(b.Context(), "go", "build", "-o", binary,
		"github.com/edgewalk/edgewalk/cmd/edgewalk")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	handshakes := DefaultReady + 1000
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			if n > 100_000 && testing.Short() {
				b.Skip("a million certificates take 1.7 GB of disk")
			}
			without, dir := agentFolder(b, n, 1), agentFolder(b, n, n)
			for b.Loop() {
				a := startAgent(b, binary, without)
				bare := a.fill(b, handshakes, 1)
				a.stop(b)
				a = startAgent(b, binary, dir)
				b.ReportMetric(ms(a.opened), "ms-to-listen")
				a.handshake(b, n-1)
				b.ReportMetric(ms(time.Since(a.started)), "ms-to-all")
				b.ReportMetric(ms(a.cpu(b)), "ms-CPU-to-all")
				began := a.cpu(b)
				b.ReportMetric(float64(a.fill(b, handshakes, n)-bare)/1e6, "MB-added")
				b.ReportMetric(us(a.cpu(b)-began)/float64(handshakes), "us-CPU-handshake")
				a.strangers(b)
				a.stop(b)
			}
		})
	}
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// agentFolder is the state folder of an agent that was told of n domains, and has the certificates
// of the first of them.
func agentFolder(b *testing.B, n, certified int) string {
	b.Helper()
	dir := b.TempDir()
	w := newWorld(b)
	if err := os.Mkdir(filepath.Join(dir, "certificates"), 0o700); err != nil {
		b.Fatal(err)
	}
	folder, err := state.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	folder.Load(func(state.Step) error { return nil })
	spool := folder.Spool(state.Position{Epoch: "e"}, &edgev1.Welcome_Settings{SharedHost: "shared.test"})
	w.fillWith(filepath.Join(dir, "certificates"), n, certified, func(s route.Step) {
		for r, err := range s.Records {
			if err != nil {
				b.Fatal(err)
			}
			spool.Add([]state.Change{{
				Key: r.Key.String(), Mod: r.ModRevision, Create: r.CreateRevision, Value: r.Value,
			}})
		}
	})
	folder.Install(spool, 2, time.Now())
	flushed, flush := context.WithCancel(b.Context())
	flush()
	folder.Flush(flushed, func() {}, func() {})
	folder.Close()
	w.keepKeys(dir)
	return dir
}

// keepKeys writes the keyring that opens the certificates as an agent keeps it.
func (w *world) keepKeys(dir string) {
	w.tb.Helper()
	key, _, err := seal.EnsureKey(filepath.Join(dir, "state-key"))
	if err != nil {
		w.tb.Fatal(err)
	}
	keys, err := w.keys.Bytes()
	if err != nil {
		w.tb.Fatal(err)
	}
	encoded, err := proto.Marshal(&edgev1.Keyring{
		Epoch: "topology", Keysets: []*edgev1.Keyring_Keyset{{Name: "default", Keys: keys}},
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	wrapped, err := key.Wrap(encoded, seal.Place{Name: "keyring"})
	if err != nil {
		w.tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "keyring"), wrapped, 0o600); err != nil {
		w.tb.Fatal(err)
	}
}

// agent is a running edge agent.
type agent struct {
	cmd     *exec.Cmd
	https   string
	started time.Time
	opened  time.Duration // after started
}

// startAgent starts an agent with a folder, and returns once it takes connections.
func startAgent(b *testing.B, binary, dir string) *agent {
	b.Helper()
	a := &agent{https: listentest.Unused(b)}
	log, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	a.cmd = exec.Command(binary, "edgeagent", "--control-plane", listentest.Unused(b), "--state-dir", dir,
		"--http-addr", "127.0.0.1:0", "--https-addr", a.https, "--metrics-addr", "127.0.0.1:0", "--cache-size", "64MiB")
	a.cmd.Stderr, a.started = log, time.Now()
	if err := a.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	until(b, "the agent takes connections", func() bool {
		conn, err := net.Dial("tcp", a.https)
		if err != nil {
			return false
		}
		a.opened = time.Since(a.started)
		return conn.Close() == nil
	})
	return a
}

func (a *agent) stop(b *testing.B) {
	b.Helper()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.Error(err)
	}
	_ = a.cmd.Wait() // how it ends is not what is measured
}

// handshake makes a handshake for a domain.
func (a *agent) handshake(b *testing.B, number int) {
	b.Helper()
	if err := a.shake(fmt.Sprintf("n%d.example.com", number)); err != nil {
		b.Fatal(err)
	}
}

func (a *agent) shake(name string) error {
	// The certificates are all of one name, which is not what is measured.
	conn, err := tls.Dial("tcp", a.https, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	return conn.Close()
}

// all calls do for numbers below n, some at a time.
func all(n int, do func(int) error) error {
	var group sync.WaitGroup
	var next, failed atomic.Int64
	errs := make(chan error, 1)
	for range 4 {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil && failed.Add(1) == 1 {
					errs <- err
				}
			}
		})
	}
	group.Wait()
	close(errs)
	return <-errs
}

// fill makes handshakes for the first of n domains, in turn, and returns what the agent takes then.
func (a *agent) fill(b *testing.B, handshakes, n int) int64 {
	b.Helper()
	err := all(handshakes, func(i int) error { return a.shake(fmt.Sprintf("n%d.example.com", i%n)) })
	if err != nil {
		b.Fatal(err)
	}
	return a.resident(b)
}

// resident is the memory that the agent takes, in bytes.
func (a *agent) resident(b *testing.B) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", a.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// cpu is the CPU time that the agent has taken.
func (a *agent) cpu(b *testing.B) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
	ticks := 0
	for _, field := range fields[11:13] { // utime and stime
		n, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

// strangers makes handshakes for names that nobody has.
func (a *agent) strangers(b *testing.B) {
	b.Helper()
	const half = 5000
	before := a.resident(b)
	for _, unit := range []string{"us-CPU-stranger", "us-CPU-stranger-later"} {
		began := a.cpu(b)
		err := all(half, func(int) error {
			err := a.shake(strings.ToLower(rand.Text()) + ".example.org")
			if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				return fmt.Errorf("a name that nobody has is answered with %v", err)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(us(a.cpu(b)-began)/half, unit)
	}
	b.ReportMetric(float64(a.resident(b)-before)/1e6, "MB-strangers")
}
