// Package preflight looks at what a daemon would be started with, and changes nothing: addresses,
// folders, and what its caller adds.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/edgewalk/edgewalk/internal/systemd"
)

// Check is one condition that has to hold.
type Check struct {
	// What is looked at, such as a flag and its value.
	What string
	// Look returns what is wrong, and how to repair it. It should end soon after ctx.
	Look func(ctx context.Context) error
}

// Note is an error that does not fail a check: worth knowing, and nothing to repair.
type Note struct{ Text string }

func (n Note) Error() string { return n.Text }

// lookTime bounds one check.
const lookTime = 5 * time.Second

// Run looks at everything and prints a line for each. Its error says how many failed.
func Run(ctx context.Context, to io.Writer, checks []Check) error {
	failed := 0
	for _, c := range checks {
		look, cancel := context.WithTimeout(ctx, lookTime)
		err := c.Look(look)
		cancel()
		note := Note{}
		switch {
		case err == nil:
			fmt.Fprintf(to, "ok    %s\n", c.What)
		case errors.As(err, &note):
			fmt.Fprintf(to, "note  %s: %s\n", c.What, note.Text)
		default:
			failed++
			fmt.Fprintf(to, "FAIL  %s: %v\n", c.What, err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(checks))
	}
	return nil
}

// Address checks that an address can be listened at. That it is in use is a note: the daemon that
// is checked may be running.
func Address(flag, address string) Check {
	return Check{flag + " " + address, func(ctx context.Context) error {
		if systemd.Names(address) {
			return Note{"opened by systemd, which is not asked"}
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			return Note{"in use: nothing to repair if it is this daemon that listens"}
		case errors.Is(err, syscall.EACCES):
			return fmt.Errorf("%w: ports below 1024 need CAP_NET_BIND_SERVICE or a socket of systemd", err)
		case err != nil:
			return err
		}
		return l.Close()
	}}
}

// Folder checks that files can be written to a folder, or that it could be made.
func Folder(flag, dir string) Check {
	return Check{flag + " " + dir, func(context.Context) error {
		at := dir
		for {
			info, err := os.Stat(at)
			if err == nil && !info.IsDir() {
				return fmt.Errorf("%s is no folder", at)
			}
			if err == nil {
				break
			}
			if !errors.Is(err, os.ErrNotExist) {
				return err
			}
			parent := filepath.Dir(at)
			if parent == at {
				return err
			}
			at = parent
		}
		f, err := os.CreateTemp(at, ".check-*")
		if err != nil {
			return err
		}
		f.Close()
		return os.Remove(f.Name())
	}}
}

// Reachable checks that somebody listens at an address.
func Reachable(what, address string) Check {
	return Check{what, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}}
}
