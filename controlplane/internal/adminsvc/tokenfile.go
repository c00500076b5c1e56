package adminsvc

import (
	"context"
	"net"
	"os"
	"syscall"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/edgewalk/edgewalk/controlplane/internal/localpeer"
	"github.com/edgewalk/edgewalk/internal/bearer"
)

// forwarded are fields that proxies add.
var forwarded = []string{
	"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "x-envoy-external-address",
}

// tokenFileFor is the path of the root token's file, for a caller that asks for it and could read
// it anyway: a program of this machine, of the file's owner or the superuser, that speaks for
// nobody else. It is empty for all others, and where the file holds no valid token.
func (s *Service) tokenFileFor(ctx context.Context) string {
	fields, _ := metadata.FromIncomingContext(ctx)
	if s.rootTokenFile == "" || len(fields.Get(bearer.TokenFileField)) == 0 {
		return ""
	}
	for _, name := range forwarded {
		if len(fields.Get(name)) > 0 {
			return ""
		}
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	client, ok := p.Addr.(*net.TCPAddr)
	server, direct := p.LocalAddr.(*net.TCPAddr)
	if !ok || !direct {
		return ""
	}
	user, ok := localpeer.User(client.AddrPort(), server.AddrPort())
	if !ok {
		return ""
	}
	info, err := os.Stat(s.rootTokenFile)
	if err != nil {
		return ""
	}
	file, ok := info.Sys().(*syscall.Stat_t)
	if !ok || user != 0 && user != file.Uid {
		return ""
	}
	text, err := os.ReadFile(s.rootTokenFile)
	if err != nil || !s.auth.Accepts(string(text)) {
		return ""
	}
	return s.rootTokenFile
}
