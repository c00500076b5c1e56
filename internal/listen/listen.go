// Package listen opens sockets with errors that say what to change, bounds their connections, and
// knows the addresses that only this machine can reach. What is served there is its callers'
// business.
package listen

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/edgewalk/edgewalk/internal/systemd"
)

// Open listens at address, `host:port`; port 0 picks a free one. `systemd:NAME` is a socket that
// systemd has opened. An error names flag, where the address came from.
func Open(flag, address string) (net.Listener, error) {
	if systemd.Names(address) {
		l, err := systemd.Listener(address)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", flag, address, err)
		}
		return l, nil
	}
	l, err := net.Listen("tcp", address)
	switch wrong := (*net.AddrError)(nil); {
	case errors.As(err, &wrong) && strings.Contains(wrong.Err, "missing port"):
		return nil, fmt.Errorf("%s %s has no port: write host:port, or :port for every address of this machine", flag, address)
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s %s is in use by another program: choose another address", flag, address)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return l, nil
}

// WithPort returns an address with a port: its own, or else port.
func WithPort(address, port string) string {
	if _, _, err := net.SplitHostPort(address); err == nil || address == "" {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), port)
}

// Loopback reports whether address, with or without a port, is one that only this machine reaches.
// A name other than localhost may be anything.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
