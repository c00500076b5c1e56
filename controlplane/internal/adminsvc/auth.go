package adminsvc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// tokensEvery is how often the token file is looked at for a change.
const tokensEvery = time.Second

// Tokens are the tokens of a file, one a line; empty lines and those that begin with # do not count. A changed file counts
// within a second; while it cannot be read, or has no token, the last ones stay.
type Tokens struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	looked time.Time
	stamp  string
	hashes [][sha256.Size]byte
}

// LoadTokens reads a token file. It must have a token.
func LoadTokens(path string, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{path: path, log: log, looked: time.Now()}
	return t, t.load()
}

func (t *Tokens) load() error {
	info, err := os.Stat(t.path)
	if err != nil {
		return fmt.Errorf("read token file: %w", err)
	}
	stamp := fmt.Sprint(info.Size(), info.ModTime().UnixNano())
	if stamp == t.stamp {
		return nil
	}
	raw, err := os.ReadFile(t.path)
	if err != nil {
		return fmt.Errorf("read token file: %w", err)
	}
	var hashes [][sha256.Size]byte
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			hashes = append(hashes, sha256.Sum256([]byte(line)))
		}
	}
	if len(hashes) == 0 {
		return fmt.Errorf("read token file: %q has no token", t.path)
	}
	t.stamp, t.hashes = stamp, hashes
	return nil
}

// Has reports whether the file has a token. The time it takes depends on nothing but the number of tokens.
func (t *Tokens) Has(token string) bool {
	sum := sha256.Sum256([]byte(token))
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.looked) >= tokensEvery {
		t.looked = time.Now()
		if err := t.load(); err != nil {
			t.log.Warn("keep the tokens read before", "error", err)
		}
	}
	found := 0
	for i := range t.hashes {
		found |= subtle.ConstantTimeCompare(sum[:], t.hashes[i][:])
	}
	return found == 1
}

// open are the methods that need no token: load balancers ask for health.
const openMethods = "/grpc.health.v1.Health/"

func (s *Service) authenticate(ctx context.Context, method string) error {
	if s.tokens == nil || strings.HasPrefix(method, openMethods) {
		return nil
	}
	for _, value := range metadata.ValueFromIncomingContext(ctx, "authorization") {
		scheme, token, _ := strings.Cut(value, " ")
		if strings.EqualFold(scheme, "bearer") && s.tokens.Has(strings.TrimSpace(token)) {
			return nil
		}
	}
	return fail(kindUnauthenticated, "a valid token is needed: send `authorization: Bearer TOKEN`, as the edgewalk command does with EDGEWALK_TOKEN")
}

func (s *Service) authenticateUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := s.authenticate(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (s *Service) authenticateStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := s.authenticate(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(srv, stream)
}
