package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Deadlines are for machines that are busy; nothing waits for them that goes well.
const (
	startWithin = 60 * time.Second
	stopWithin  = 40 * time.Second // A request may take 30 s to finish after SIGTERM.
	soon        = 30 * time.Second
)

// eventually polls until ok, and fails the test when that does not come true in time.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s", within, what)
		case <-again.C:
		}
	}
}

// transcript collects what a process writes; it is safe to read while the process runs.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *transcript) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// last returns the end of a long transcript: what led to a failure is there.
func (l *transcript) last() string {
	const most = 8 << 10
	text := l.String()
	if len(text) > most {
		return "...\n" + text[len(text)-most:]
	}
	return text
}

// process is a daemon under test.
type process struct {
	name    string
	args    []string
	cmd     *exec.Cmd
	stderr  *transcript
	stdout  *transcript
	done    chan struct{} // closed when it has ended
	killed  bool          // by the test, on purpose
	foreign bool          // no program of ours: how it ends is its own business
}

// start runs a program until the test ends, and judges then how it stopped.
func start(t testing.TB, name, program string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = cleanEnvironment()
	return run(t, name, args, cmd)
}

// run does the same with a command that has its own environment.
func run(t testing.TB, name string, args []string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{
		name: name, args: args, cmd: cmd, stderr: &transcript{}, stdout: &transcript{}, done: make(chan struct{}),
	}
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.cmd.SysProcAttr = childAttributes()
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.done)
		p.cmd.Wait() // How it ended is in ProcessState.
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("%s (%s) wrote:\n%s", p.name, strings.Join(p.args, " "), p.stderr.last())
		}
	})
	return p
}

// cleanEnvironment is the environment without what would change flags of edgewalk. A program built
// with the race detector would sleep a second before it ends.
func cleanEnvironment() []string {
	env := []string{
		"GORACE=atexit_sleep_ms=0", "TMPDIR=" + scratch, "XDG_CONFIG_HOME=" + filepath.Join(scratch, "config"),
	}
	for _, one := range os.Environ() {
		if !strings.HasPrefix(one, "EDGEWALK_") && !strings.HasPrefix(one, "TMPDIR=") &&
			!strings.HasPrefix(one, "XDG_CONFIG_HOME=") {
			env = append(env, one)
		}
	}
	return env
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop asks the process to end, and expects it to do so in order.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if p.killed {
		p.checkStory(t)
		return
	}
	browser.CloseIdleConnections() // An edge would wait for what may still be said on them.
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopWithin):
		p.cmd.Process.Signal(syscall.SIGQUIT) // It then prints the stacks of its goroutines.
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
			p.cmd.Process.Kill()
			<-p.done
		}
		t.Errorf("%s did not stop within %s of SIGTERM", p.name, stopWithin)
	}
	p.killed = true
	if code := p.cmd.ProcessState.ExitCode(); code != 0 && !p.foreign {
		t.Errorf("%s ended with %s, want exit code 0", p.name, p.cmd.ProcessState)
	}
	p.checkStory(t)
}

// checkStory fails the test for what no process may ever write.
func (p *process) checkStory(t testing.TB) {
	t.Helper()
	text := p.stderr.String()
	for _, bad := range []string{"WARNING: DATA RACE", "panic:", "fatal error:"} {
		if i := strings.Index(text, bad); i >= 0 {
			t.Errorf("%s wrote:\n%s", p.name, text[i:min(len(text), i+8<<10)])
		}
	}
}

// kill9 ends the process as a power cut or the kernel would.
func (p *process) kill9(t testing.TB) {
	t.Helper()
	p.killed = true
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatalf("kill %s: %v", p.name, err)
	}
	<-p.done
}

// logged waits for a line of the log that has all the keys, and returns their values.
func (p *process) logged(t testing.TB, keys ...string) map[string]string {
	t.Helper()
	var found map[string]string
	eventually(t, startWithin, fmt.Sprintf("%s logs %s", p.name, strings.Join(keys, ", ")), func() bool {
		if found = p.lineWith(keys); found == nil && !p.running() {
			t.Fatalf("%s ended with %s before it logged %s", p.name, p.cmd.ProcessState, strings.Join(keys, ", "))
		}
		return found != nil
	})
	return found
}

func (p *process) lineWith(keys []string) map[string]string {
	for line := range strings.Lines(p.stderr.String()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue
		}
		values := map[string]string{}
		for _, key := range keys {
			if text, ok := entry[key].(string); ok && text != "" {
				values[key] = text
			}
		}
		if len(values) == len(keys) {
			return values
		}
	}
	return nil
}
