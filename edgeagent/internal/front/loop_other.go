//go:build !linux

package front

import (
	"errors"
	"net"
	"net/netip"
	"os"

	"github.com/edgewalk/edgewalk/internal/listen"
)

// Elsewhere each connection has a goroutine.

type loop struct{}

func newLoops(*Server) ([]*loop, error) { return nil, errors.ErrUnsupported }
func closeLoops([]*loop)                {}

func (*conn) detach()      {}
func (*conn) attach() bool { return false }
func (*conn) shut(int)     {}
func (*conn) closeNow()    {}

func sendNow(int, []byte, []byte) (int, error)                 { return 0, errors.ErrUnsupported }
func readFileNow(int, []byte, int64) bool                      { return false }
func (*Server) acceptLoop(int, netip.AddrPort, *listen.Places) {}

type acceptor struct{ net.Listener }

func newAcceptor(*net.TCPListener) *acceptor { return nil }

func (*acceptor) next() (int, netip.AddrPort, error) { return -1, netip.AddrPort{}, os.ErrInvalid }
