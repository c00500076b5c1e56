// Package bearer reads files of bearer tokens (RFC 6750), and reads them again when they change, so
// that a token is replaced without a restart.
package bearer

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// TokenFileField is the metadata field of a health check (gRPC's Check) with which a program asks
// for the path of the file of the first root token. The same field of the answer's header has the
// path, for programs of the same machine that could read it anyway.
const TokenFileField = "edgewalk-token-file-bin"

// lookEvery is how often a token file is looked at for a change.
const lookEvery = time.Second

// Tokens are those of a file, one a line; empty lines and those that begin with # do not count. A
// changed file counts within a second; while it cannot be read, or has no token, the last ones
// stay.
type Tokens struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	looked time.Time
	stamp  string
	first  string
	hashes [][sha256.Size]byte
}

// Load reads a token file. It must have a token.
func Load(path string, log *slog.Logger) (*Tokens, error) {
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
	var first string
	var hashes [][sha256.Size]byte
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if hashes = append(hashes, sha256.Sum256([]byte(line))); len(hashes) == 1 {
			first = line
		}
	}
	if len(hashes) == 0 {
		return fmt.Errorf("read token file: %q has no token", t.path)
	}
	t.stamp, t.first, t.hashes = stamp, first, hashes
	return nil
}

// refresh reads the file again if it may have changed. The lock is held.
func (t *Tokens) refresh() {
	if time.Since(t.looked) < lookEvery {
		return
	}
	t.looked = time.Now()
	if err := t.load(); err != nil {
		t.log.Warn("keep the tokens read before", "error", err)
	}
}

// First returns the first token of the file, the one to present.
func (t *Tokens) First() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh()
	return t.first
}

// Accept reports whether one of the values of an Authorization field presents a token of the file.
// The time it takes depends on nothing but the number of tokens.
func (t *Tokens) Accept(authorization ...string) bool {
	for _, value := range authorization {
		scheme, token, _ := strings.Cut(value, " ")
		if strings.EqualFold(scheme, "bearer") && t.has(strings.TrimSpace(token)) {
			return true
		}
	}
	return false
}

func (t *Tokens) has(token string) bool {
	sum := sha256.Sum256([]byte(token))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh()
	found := 0
	for i := range t.hashes {
		found |= subtle.ConstantTimeCompare(sum[:], t.hashes[i][:])
	}
	return found == 1
}
