package origin

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"sync"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/web"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// A secure holds the TLS settings of an origin that differ from the default. Connections and
// sessions are shared only under equal settings, because a session that was made with other CAs, or
// without a check, proves nothing.
type secure struct {
	key    string
	config *tls.Config
}

// maxSecures bounds the TLS settings that are kept. When there are more, all are dropped.
const maxSecures = 1024

// secures holds TLS settings of origins, by their key.
type secures struct {
	base     *tls.Config
	enforced bool // origins may not turn the check off

	mu    sync.Mutex
	known map[string]*secure
}

func newSecures(base *tls.Config, enforced bool) *secures {
	return &secures{base: base, enforced: enforced, known: make(map[string]*secure)}
}

// of returns the TLS settings of o, nil for the default ones. Its error is a *kind.ConfigError.
func (s *secures) of(o *topology.Origin) (*secure, error) {
	spec := o.Spec.GetWeb()
	name, cas, checked := web.TLSName(spec), spec.GetCaPem(), spec == nil || spec.TlsVerify == nil || *spec.TlsVerify
	if name == "" && cas == "" && checked {
		return nil, nil
	}
	if !checked && s.enforced {
		return nil, kind.WrongConfig("the operator of this edge has every certificate checked",
			"set web.tlsVerify to true, with web.caPem if the certificate is of a CA of your own")
	}
	hash := sha256.New()
	hash.Write([]byte(name + "\x00" + cas))
	if !checked {
		hash.Write([]byte{0, 1})
	}
	key := hex.EncodeToString(hash.Sum(nil)[:16])
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.known[key]; found != nil {
		return found, nil
	}
	config := s.base.Clone()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	config.ServerName, config.InsecureSkipVerify = name, !checked
	if cas != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(cas)) {
			return nil, kind.WrongConfig("caPem holds no certificate", "correct web.caPem")
		}
	}
	if len(s.known) >= maxSecures {
		clear(s.known)
	}
	s.known[key] = &secure{key, config}
	return s.known[key], nil
}

// secureOf returns the TLS configuration for a connection to a host.
func (d *dialer) secureOf(s *secure, host string) *tls.Config {
	config := d.tls()
	if s != nil {
		config = s.config
	}
	if config = config.Clone(); config.ServerName == "" {
		config.ServerName = host
	}
	return config
}
