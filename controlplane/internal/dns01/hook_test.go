package dns01

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/internal/dnstest"
)

// script writes a program of a test.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// await returns once something is so.
func await(so func() bool) {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !so() {
		<-look.C
	}
}

func loopback(a netip.Addr) bool { return a.IsLoopback() }

func hookOf(t *testing.T, program string, n *dnstest.Network) *hook {
	h := newHook(program, nil, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if n != nil {
		h.resolver = resolver.New(resolver.Config{
			Resolvers: []netip.AddrPort{n.Resolver}, Port: n.Resolver.Port(), Timeout: 20 * time.Second,
			Allow: loopback,
		})
	}
	return h
}

var hooked = Challenge{Way: ByHook, Name: "_acme-challenge.example.com", Value: value}

// A hook is told what to do by its arguments and its environment, which has nothing of edgewalk's
// own. It is believed once every name server has the record.
func TestHookSetsRecords(t *testing.T) {
	t.Setenv("EDGEWALK_CONTROLPLANE_SECRET_KEY_FILE", "/secret")
	t.Setenv("DNS_PROVIDER_TOKEN", "of the operator")
	n := dnstest.New(t, "ns1.example.net=127.0.0.11", "ns2.example.net=127.0.0.12")
	n.Zone("example.com", "ns1.example.net ns2.example.net", "")
	log := filepath.Join(t.TempDir(), "log")
	h := hookOf(t, script(t, `echo "$@" >> `+log+`; env | grep -E '^(EDGEWALK|DNS)_' | sort >> `+log), n)
	record := "_acme-challenge TXT " + value
	result := make(chan error, 1)
	go func() { result <- h.present(t.Context(), hooked) }()
	await(func() bool { return n.Asked(hooked.Name, "TXT") >= 2 })
	n.Set("example.com", "ns1.example.net", record)
	before := n.Asked(hooked.Name, "TXT")
	await(func() bool { return n.Asked(hooked.Name, "TXT") >= before+4 })
	select {
	case err := <-result:
		t.Fatalf("it is said to be there while a name server lacks it: %v", err)
	default:
	}
	n.Set("example.com", "ns2.example.net", record)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if err := h.cleanup(t.Context(), hooked); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, action := range []string{"present", "cleanup"} {
		want += fmt.Sprintf("%s _acme-challenge.example.com. %s\nDNS_PROVIDER_TOKEN=of the operator\n"+
			"EDGEWALK_ACME_ACTION=%s\nEDGEWALK_ACME_NAME=_acme-challenge.example.com.\nEDGEWALK_ACME_VALUE=%s\n",
			action, value, action, value)
	}
	if string(text) != want {
		t.Errorf("the hook was told\n%s\nwant\n%s", text, want)
	}
}

func TestHookFails(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, body, want string }{
		{"says why", "echo no such zone >&2; exit 3", "present _acme-challenge.example.com: exit status 3: no such zone"},
		{"says nothing", "exit 1", "present _acme-challenge.example.com: exit status 1"},
		{"says too much", "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1", "the end"},
		{"says what cannot be shown", "printf 'a\\033[31mb'; exit 1", "a?[31mb"},
		{"is killed", "kill -9 $$", "signal: killed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := hookOf(t, script(t, test.body), nil).present(t.Context(), hooked)
			if err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 3000 {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	if err := hookOf(t, "/nonexistent/hook", nil).present(t.Context(), hooked); err == nil {
		t.Error("a hook that is not there has set a record")
	}
	if _, err := FindHook("/nonexistent/hook"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
}

// A hook that takes too long ends with what it has started, and so does one whose caller goes.
func TestHookEndsWithItsChildren(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, tail string
		timeout    bool
		want       string
	}{
		{"too slow", "wait", true, "it was ended after "},
		{"in vain", "wait", false, "killed"},
		{"leaves it behind", "exit 1", false, "exit status 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for timeout := time.Second; ; timeout *= 4 {
				pid, err := runsOn(t, test.tail, timeout, test.timeout)
				if pid == 0 {
					continue // it was ended before it had started anything
				}
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want %q", err, test.want)
				}
				await(func() bool { return !alive(pid) })
				return
			}
		})
	}
}

// runsOn runs a hook that starts a process and goes on with tail, until timeout or until its caller
// goes. It returns that process.
func runsOn(t *testing.T, tail string, timeout time.Duration, timed bool) (pid int, err error) {
	t.Helper()
	pids := filepath.Join(t.TempDir(), "pids")
	h := hookOf(t, script(t, `sh -c 'sleep 1000 & echo $! > `+pids+`.new; mv `+pids+`.new `+pids+`; wait' &
while ! [ -e `+pids+` ]; do sleep 0.05; done
`+tail), nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if timed {
		h.timeout = timeout
	}
	result := make(chan error, 1)
	go func() { result <- h.present(ctx, hooked) }()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for pid == 0 {
		select {
		case err := <-result:
			text, _ := os.ReadFile(pids)
			pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
			return pid, err
		case <-look.C:
		}
		text, _ := os.ReadFile(pids)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if !timed && tail == "wait" {
		cancel()
	}
	return pid, <-result
}

// alive reports whether a process runs, and is not only waited for.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}
