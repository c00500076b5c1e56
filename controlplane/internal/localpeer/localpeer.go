// Package localpeer finds out whose program is at the other end of a TCP connection within this
// machine. An address of loopback alone does not say: a proxy on this machine has one, whoever it
// speaks for.
package localpeer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// User returns the id of the user who owns the client's end of a connection, by the kernel's list
// of connections (https://man7.org/linux/man-pages/man5/proc_pid_net.5.html). It is not ok where
// that list does not have it, as on another system than Linux.
func User(client, server netip.AddrPort) (id uint32, ok bool) {
	client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	server = netip.AddrPortFrom(server.Addr().Unmap(), server.Port())
	if !client.Addr().IsLoopback() || !server.Addr().IsLoopback() {
		return 0, false
	}
	for _, list := range []struct {
		file string
		form func(netip.AddrPort) string
	}{{"/proc/self/net/tcp", narrow}, {"/proc/self/net/tcp6", wide}} {
		if id, ok := find(list.file, list.form(client), list.form(server)); ok {
			return id, true
		}
	}
	return 0, false
}

// find looks for a connection in a list.
func find(file, local, remote string) (id uint32, ok bool) {
	const (
		localColumn, remoteColumn, userColumn = 1, 2, 7
	)
	if local == "" || remote == "" {
		return 0, false
	}
	f, err := os.Open(file)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if !bytes.Contains(lines.Bytes(), []byte(local)) {
			continue
		}
		columns := strings.Fields(lines.Text())
		if len(columns) <= userColumn || columns[localColumn] != local || columns[remoteColumn] != remote {
			continue
		}
		n, err := strconv.ParseUint(columns[userColumn], 10, 32)
		return uint32(n), err == nil
	}
	return 0, false
}

// narrow and wide are an address as the lists of IPv4 and IPv6 have it: 32 bits at a time, in the
// order of the machine's bytes. An address of IPv6 is not in the list of IPv4.
func narrow(a netip.AddrPort) string {
	if !a.Addr().Is4() {
		return ""
	}
	ip := a.Addr().As4()
	return words(ip[:], a.Port())
}

func wide(a netip.AddrPort) string {
	ip := a.Addr().As16()
	return words(ip[:], a.Port())
}

func words(ip []byte, port uint16) string {
	turned := make([]byte, 0, len(ip))
	for ; len(ip) > 0; ip = ip[4:] {
		turned = binary.BigEndian.AppendUint32(turned, binary.NativeEndian.Uint32(ip))
	}
	text := hex.EncodeToString(turned) + ":" + hex.EncodeToString(binary.BigEndian.AppendUint16(nil, port))
	return strings.ToUpper(text)
}
