package controlplane

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is a pair of files that is read again when they change.
type certificate struct {
	cert, key string
	log       *slog.Logger

	// mu guards what follows; a handshake that finds the files changed reads them.
	mu      sync.Mutex
	pair    *tls.Certificate
	stamp   string
	checked time.Time
}

// certificateEvery is how often, at most, the files are looked at.
const certificateEvery = 5 * time.Second

func newCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log, stamp: "", checked: time.Now()}
	c.stamp = c.version()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read --tls-cert %s and --tls-key %s: %w", cert, key, err)
	}
	c.pair = &pair
	return c, nil
}

// get implements the GetCertificate of [tls.Config]. Files that cannot be read leave the
// certificate in use.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < certificateEvery {
		return c.pair, nil
	}
	c.checked = time.Now()
	if version := c.version(); version != c.stamp {
		c.stamp = version
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			c.log.Error("certificate changed but cannot be used; the old one stays", "err", err)
			return c.pair, nil
		}
		c.pair = &pair
	}
	return c.pair, nil
}

func (c *certificate) version() string {
	stamp := ""
	for _, name := range []string{c.cert, c.key} {
		if info, err := os.Stat(name); err == nil {
			stamp += fmt.Sprint(info.ModTime().UnixNano(), info.Size(), " ")
		}
	}
	return stamp
}
