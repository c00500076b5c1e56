package dns01

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
)

const (
	// hookTimeout bounds one run of a hook.
	hookTimeout = 2 * time.Minute
	// hooksAtOnce are the runs at a time.
	hooksAtOnce = 4
	// hookOutput is how much of what a hook prints is kept: its end.
	hookOutput = 2 << 10
	// spreadTimeout is how long a record that a hook has set may take to be at all name servers,
	// which are asked every spreadEvery.
	spreadTimeout = 5 * time.Minute
	spreadEvery   = 2 * time.Second
)

// hook is a program of the operator's that sets TXT records. It is run as
//
//	HOOK present|cleanup _acme-challenge.example.com. VALUE
//
// which is how lego runs those of its own (https://go-acme.github.io/lego/dns/exec/), with the
// environment of the control plane, less what is about edgewalk, and with EDGEWALK_ACME_ACTION,
// EDGEWALK_ACME_NAME and EDGEWALK_ACME_VALUE, which are the same three. It ends with 0 when it has
// done that, and with anything else when it has not.
type hook struct {
	program  string
	resolver *resolver.Resolver
	log      *slog.Logger
	places   chan struct{}
	timeout  time.Duration
}

// FindHook returns the path of a hook, or an error that says why it cannot be run.
func FindHook(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%q cannot be run: %w", program, errors.Unwrap(err))
	}
	return path, nil
}

func newHook(program string, r *resolver.Resolver, log *slog.Logger) *hook {
	places := make(chan struct{}, hooksAtOnce)
	return &hook{program: program, resolver: r, log: log, places: places, timeout: hookTimeout}
}

// present sets a record, and returns once every name server has it that can be asked.
func (h *hook) present(ctx context.Context, ch Challenge) error {
	if err := h.run(ctx, "present", ch); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, spreadTimeout)
	defer cancel()
	ticker := time.NewTicker(spreadEvery)
	defer ticker.Stop()
	for {
		missing := h.missing(ctx, ch)
		if missing == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("--acme-dns-hook ended with 0, and after %s %s", spreadTimeout, missing)
		case <-ticker.C:
		}
	}
}

// missing says where a record is not, empty if it is everywhere.
func (h *hook) missing(ctx context.Context, ch Challenge) string {
	a := h.resolver.Session().Lookup(ctx, ch.Name, "TXT")
	i := slices.IndexFunc(a.Records, func(r resolver.Record) bool { return r.Type == "TXT" && r.Value == ch.Value })
	switch {
	case a.Outcome == resolver.Unasked, a.Outcome == resolver.Broken:
		return fmt.Sprintf("DNS cannot be asked for %s: %v", ch.Name, a.Err)
	case i < 0:
		return fmt.Sprintf("no name server has TXT %s at %s", ch.Value, ch.Name)
	case len(a.Lacking(a.Records[i])) > 0:
		return fmt.Sprintf("%s does not have TXT %s at %s", strings.Join(a.Lacking(a.Records[i]), ", "), ch.Value,
			ch.Name)
	}
	return ""
}

func (h *hook) cleanup(ctx context.Context, ch Challenge) error { return h.run(ctx, "cleanup", ch) }

func (h *hook) run(ctx context.Context, action string, ch Challenge) error {
	select {
	case h.places <- struct{}{}:
		defer func() { <-h.places }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.program, action, ch.Name+".", ch.Value)
	cmd.Env = append(hookEnvironment(os.Environ()),
		"EDGEWALK_ACME_ACTION="+action, "EDGEWALK_ACME_NAME="+ch.Name+".", "EDGEWALK_ACME_VALUE="+ch.Value)
	var output tail
	cmd.Stdout, cmd.Stderr = &output, &output
	// A group of its own, so that what it has started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // whoever has left the group may hold its output open
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it has left behind; mostly nothing
	}
	switch {
	case errors.Is(err, exec.ErrWaitDelay): // it ended well, and what it left behind has been ended
		err = nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("it was ended after %s", h.timeout)
	}
	if err != nil {
		return fmt.Errorf("--acme-dns-hook %s %s: %w%s", action, ch.Name, err, output.quoted())
	}
	h.log.InfoContext(ctx, "dns01: the hook has run", "action", action, "name", ch.Name, "output", output.text())
	return nil
}

// hookEnvironment leaves out what sets this program's own flags: they name its secrets.
func hookEnvironment(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(one string) bool { return strings.HasPrefix(one, "EDGEWALK_") })
}

// tail keeps the end of what is written to it.
type tail struct{ kept bytes.Buffer }

// Write implements [io.Writer].
func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > hookOutput {
		p = p[len(p)-hookOutput:]
	}
	_, _ = t.kept.Write(p)
	if over := t.kept.Len() - hookOutput; over > 0 {
		t.kept.Next(over)
	}
	return n, nil
}

// text is what was written, in one line.
func (t *tail) text() string {
	line := strings.Join(strings.Fields(t.kept.String()), " ")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, line)
}

func (t *tail) quoted() string {
	if text := t.text(); text != "" {
		return ": " + text
	}
	return ""
}
