package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server that the bench has started, with the processes it has started in turn.
type process struct {
	name    string
	cmd     *exec.Cmd
	log     string
	done    chan struct{} // closed when it has ended
	started time.Time
}

// The core that servers are pinned to, and the one of load generators, where there are two: a
// generator must not take from the server what it measures. noCore is for what may run anywhere.
const (
	noCore        = -1
	serverCore    = 0
	generatorCore = 1
)

// pinned is a command that is held to one core.
func pinned(core int, name string, args ...string) (string, []string) {
	if core == noCore || runtime.NumCPU() < 2 {
		return name, args
	}
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		return name, args
	}
	return taskset, append([]string{"-c", strconv.Itoa(core), name}, args...)
}

// start starts a server in a process group of its own, with its output in a file.
func (b *bench) start(name string, core int, command string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(b.dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	command, args = pinned(core, command, args...)
	p.cmd = exec.Command(command, args...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = b.dir, out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.cmd.Wait() // How it ended is seen in its log.
		close(p.done)
	}()
	b.started = append(b.started, p)
	b.note("%s started, pid %d", name, p.cmd.Process.Pid)
	return p, nil
}

// ended reports whether the process is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// tail is the end of what the process has said, for errors.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-5):], []byte("\n")))
}

// stopTime is what a server gets to end in order.
const stopTime = 15 * time.Second

// stop ends the process in order, then by force, with all that is in its group.
func (p *process) stop() {
	if p.ended() {
		return
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopTime):
	}
	p.kill()
}

// kill ends the process and its group at once.
func (p *process) kill() {
	children := p.tree()
	err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		p.cmd.Process.Kill()
	}
	if !p.ended() {
		for _, pid := range children {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	<-p.done
}

// tree lists the process and its descendants.
func (p *process) tree() []int {
	parents := make(map[int][]int)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // The pattern is well formed.
	for _, path := range stats {
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		if fields := statFields(pid); fields != nil {
			parent, _ := strconv.Atoi(fields[1])
			parents[parent] = append(parents[parent], pid)
		}
	}
	all := []int{p.cmd.Process.Pid}
	for i := 0; i < len(all); i++ {
		all = append(all, parents[all[i]]...)
	}
	return all
}

// statFields are the fields of /proc/pid/stat after the name: state, parent, ... (proc(5) numbers
// them from 3). nil if the process is gone.
func statFields(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, rest, ok := strings.Cut(string(text), ") ")
	if !ok {
		return nil
	}
	return strings.Fields(rest)
}

// cpu is the time on processors that the process and its descendants have used: to the nanosecond,
// because /proc counts in hundredths of a second, of which a round on a busy machine has few.
func (p *process) cpu() (used time.Duration) {
	for _, pid := range p.tree() {
		var of unix.Timespec
		if unix.ClockGettime(cpuClock(pid), &of) == nil { // else it is gone
			used += time.Duration(of.Nano())
		}
	}
	return used
}

// cpuClock is the clock of a process, as clock_getcpuclockid(3) makes it.
func cpuClock(pid int) int32 { return int32(^pid<<3 | 2) }

// resident is physical memory in bytes.
type resident struct {
	total, anonymous, peak int64
}

// memory adds up the process and its descendants. Memory that they share counts for each.
func (p *process) memory() (r resident) {
	for _, pid := range p.tree() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 2 {
				continue
			}
			kb, _ := strconv.ParseInt(fields[1], 10, 64)
			switch fields[0] {
			case "VmRSS:":
				r.total += kb << 10
			case "RssAnon:":
				r.anonymous += kb << 10
			case "VmHWM:":
				r.peak += kb << 10
			}
		}
	}
	return r
}
