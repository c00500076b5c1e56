// Package systemd is what a daemon says to systemd, and what it takes from it: sd_notify(3) and
// socket activation (sd_listen_fds(3)). Without systemd all of it does nothing.
package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// scheme is how an address begins that names a socket which systemd has opened.
const scheme = "systemd:"

// inherited are the sockets that the process was started with, by FileDescriptorName. They are
// taken once: a listener that was handed out is its taker's.
var inherited = sync.OnceValues(func() (map[string][]net.Listener, error) { return activation.ListenersWithNames() })

var mu sync.Mutex // guards the map of inherited

// Names reports whether address is `systemd:NAME`: the socket of a .socket unit with
// FileDescriptorName=NAME, which by default is the unit's name.
func Names(address string) bool { return strings.HasPrefix(address, scheme) }

// Listener returns the socket that address names. Its error says which sockets there are.
func Listener(address string) (net.Listener, error) {
	name := strings.TrimPrefix(address, scheme)
	mu.Lock()
	defer mu.Unlock()
	all, err := inherited()
	if err != nil {
		return nil, fmt.Errorf("sockets of systemd: %w", err)
	}
	if of := all[name]; len(of) > 0 && of[0] != nil {
		all[name] = of[1:]
		return of[0], nil
	}
	var names []string
	for n, of := range all {
		if len(of) > 0 {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("systemd passed no socket %q, nor any other that is not in use: start the .socket unit, with FileDescriptorName=%s", name, name)
	}
	slices.Sort(names)
	return nil, fmt.Errorf("systemd passed no socket %q, but %s: set FileDescriptorName= in the .socket unit", name, strings.Join(names, ", "))
}

// State is how a daemon stands.
type State struct {
	// Ready says that it does what it is there for.
	Ready bool
	// Text is one line for `systemctl status`.
	Text string
}

// lookEvery is how often the daemon is asked for its state.
const lookEvery = time.Second

// Notify reports the state of a daemon to systemd until ctx ends: READY=1 once it is ready, STATUS=
// when that changes, WATCHDOG=1 in time for WatchdogSec=, and STOPPING=1 at the end.
func Notify(ctx context.Context, log *slog.Logger, state func() State) {
	if ok, err := daemon.SdNotify(false, ""); err != nil || !ok {
		if err != nil {
			log.Warn("systemd cannot be told how this program stands", "err", err)
		}
		return
	}
	say := func(what string) {
		if _, err := daemon.SdNotify(false, what); err != nil {
			log.Warn("systemd cannot be told how this program stands", "err", err)
		}
	}
	every := lookEvery
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog of systemd is not served", "err", err)
	}
	if watchdog > 0 {
		every = min(every, watchdog/2)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	ready, last := false, ""
	for {
		s := state()
		if s.Ready && !ready {
			ready = true
			say(daemon.SdNotifyReady)
		}
		if s.Text != last {
			last = s.Text
			say("STATUS=" + s.Text)
		}
		if watchdog > 0 {
			say(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			say(daemon.SdNotifyStopping)
			return
		case <-tick.C:
		}
	}
}
