package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// bench is what a measurement works with: the binary, a folder, and everything it has started.
type bench struct {
	options
	dir     string
	version string
	given   map[string]bool // addresses that freeAddress has returned
	figures []figure        // for the summary
	started []*process
	closers []func()
}

func newBench(ctx context.Context, o options) (*bench, error) {
	dir, err := os.MkdirTemp("", "ewbench")
	if err != nil {
		return nil, err
	}
	// nginx and Varnish may work as users of their own.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	b := &bench{options: o, dir: dir, given: make(map[string]bool)}
	if b.binary == "" {
		b.binary = filepath.Join(dir, "edgewalk")
		if err := install(ctx, b.binary); err != nil {
			b.close()
			return nil, err
		}
	}
	out, err := exec.CommandContext(ctx, b.binary, "version").Output()
	if err != nil {
		b.close()
		return nil, fmt.Errorf("%s version: %w", b.binary, err)
	}
	b.version = strings.TrimSpace(string(out))
	return b, nil
}

// install builds the binary as `make build` does, and copies it as every installed one was. The
// linker writes through mmap(2), page by page, and code from a file that lies so in the kernel's
// page cache needs some 3 % longer for a miss than code from a copy of that file.
func install(ctx context.Context, path string) error {
	linked := path + ".linked"
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", linked,
		"github.com/edgewalk/edgewalk/cmd/edgewalk")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build edgewalk: %w\n%s", err, out)
	}
	if out, err := exec.CommandContext(ctx, "install", linked, path).CombinedOutput(); err != nil {
		return fmt.Errorf("install edgewalk: %w\n%s", err, out)
	}
	return os.Remove(linked)
}

// close stops what runs, the last started first, and removes the folder.
func (b *bench) close() {
	for i := len(b.started) - 1; i >= 0; i-- {
		b.started[i].stop()
	}
	for i := len(b.closers) - 1; i >= 0; i-- {
		b.closers[i]()
	}
	os.RemoveAll(b.dir)
}

// folder makes a folder of its own for a process.
func (b *bench) folder(name string) (string, error) {
	path := filepath.Join(b.dir, name)
	return path, os.MkdirAll(path, 0o755)
}

// note shows progress, if that was asked for.
func (b *bench) note(format string, args ...any) {
	if b.verbose {
		fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
	}
}

// heading returns what the following figures were measured with, and on which machine.
func (b *bench) heading(name string, args []string) string {
	lines := []string{
		"measurement: " + name + "   command: go run ./bench " + strings.Join(args, " "),
		"machine: " + machine() + "   load before: " + loadAverage(),
		"versions: " + strings.Join(append([]string{b.version + " at " + commit()}, peerVersions()...), ", "),
		"date: " + time.Now().UTC().Format(time.DateTime) + " UTC",
	}
	return strings.Join(lines, "\n") + "\n"
}

func machine() string {
	model := "unknown CPU"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // Without it the line is only less telling.
	return fmt.Sprintf("%d x %s, Linux %s", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)))
}

// loadAverage returns how busy the machine is with other work, because figures of a busy machine
// are worth less.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	fields := strings.Fields(string(text))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown commit"
	}
	return strings.TrimSpace(string(out))
}

// freeAddress returns a loopback address with a port that was free a moment ago, and that no other
// call returns.
func (b *bench) freeAddress() (string, error) {
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		defer l.Close()
		if address := l.Addr().String(); !b.given[address] {
			b.given[address] = true
			return address, nil
		}
	}
}

// poll calls done until it is true, each interval, until ctx ends.
func poll(ctx context.Context, interval time.Duration, done func() bool) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
