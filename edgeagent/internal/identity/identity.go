// Package identity is an edge's identity for control planes: a key that never leaves its state
// folder, and a certificate for it.
//
// An edge gets its first certificate with a join token, and another one whenever a third of the
// time is left. It knows control planes by the authorities that come with the certificate, and
// before that by the hash in the token, so that it trusts nobody on first sight. An edge whose
// certificate has ended, or was revoked, serves on by what it has; it learns nothing new until it
// is given another token. What the certificate says of the edge is for control planes to read.
package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
	"github.com/edgewalk/edgewalk/internal/connfault"
	"github.com/edgewalk/edgewalk/internal/jointoken"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// Config is what an identity needs.
type Config struct {
	// Dir holds the identity in identity.pem, and before the edge has joined its key in
	// joining.pem.
	Dir string
	// TokenFile holds a join token. Empty: there is none, and the edge must have joined before. It
	// is read at the start; a token other than the one that the edge has joined with makes it join
	// anew, with a new key.
	TokenFile string
	// Addresses are those of the control planes, `host:port`.
	Addresses []string
	// TLS authenticates control planes by the operator's authorities, instead of their own.
	TLS *tls.Config

	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Identity is that of one edge.
type Identity struct {
	cfg    Config
	token  *jointoken.Token // nil when there is none to join with
	text   string           // of the token
	joined chan struct{}    // closed once there is a certificate

	mu      sync.Mutex
	held    held
	joining held   // the key that waits for its first certificate; Open's, then Run's
	trouble string // why there is no valid certificate, or will soon be none
}

// held is what a file holds.
type held struct {
	key         *ecdsa.PrivateKey
	token       string // the id of the token that the key was made for
	cert        *x509.Certificate
	authorities []*x509.Certificate // newest first
}

const (
	fileName    = "identity.pem"
	joiningName = "joining.pem"
	tokenHeader = "Join-Token"
	// callTimeout bounds connecting and one call.
	callTimeout = 10 * time.Second
	// joinLeast and joinMost bound the wait between attempts to join, renewLeast and renewMost that
	// between attempts to renew, which have more than two days.
	joinLeast, joinMost   = 500 * time.Millisecond, 30 * time.Second
	renewLeast, renewMost = time.Minute, time.Hour
	// clockLook is how often the clock is looked at for whether the certificate is due.
	clockLook = 10 * time.Minute
)

// Open reads the identity of an edge. It returns nil when there is none and no token either. An
// error says which flag to change.
func Open(cfg Config) (*Identity, error) {
	i := &Identity{cfg: cfg, joined: make(chan struct{})}
	if i.cfg.Now == nil {
		i.cfg.Now = time.Now
	}
	for _, file := range []struct {
		name string
		to   *held
	}{{fileName, &i.held}, {joiningName, &i.joining}} {
		if err := i.read(file.name, file.to); err != nil {
			return nil, fmt.Errorf("--state-dir: %w", err)
		}
	}
	if err := i.readToken(); err != nil {
		return nil, fmt.Errorf("--join-token-file: %w", err)
	}
	switch {
	case i.held.cert != nil && i.token == nil:
		close(i.joined)
	case i.token == nil:
		return nil, nil
	}
	return i, nil
}

// readToken reads the token file, which may be gone once the edge has joined.
func (i *Identity) readToken() error {
	if i.cfg.TokenFile == "" {
		return nil
	}
	content, err := os.ReadFile(i.cfg.TokenFile)
	if errors.Is(err, fs.ErrNotExist) && i.held.cert != nil {
		return nil
	}
	if err != nil {
		return err
	}
	token, err := jointoken.Parse(string(content))
	if err != nil {
		return fmt.Errorf("%s: %w", i.cfg.TokenFile, err)
	}
	if token.ID == i.held.token && i.held.cert != nil {
		return nil
	}
	i.token, i.text = &token, strings.TrimSpace(string(content))
	return nil
}

// read reads a file, if it is there.
func (i *Identity) read(name string, to *held) error {
	path := filepath.Join(i.cfg.Dir, name)
	rest, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var h held
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return broken(path, "its key is malformed")
			}
			h.key, _ = key.(*ecdsa.PrivateKey)
			h.token = block.Headers[tokenHeader]
		case block.Type == "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return broken(path, "a certificate is malformed")
			}
			if h.cert == nil {
				h.cert = cert
			} else {
				h.authorities = append(h.authorities, cert)
			}
		}
	}
	if h.key == nil ||
		name == fileName && (h.cert == nil || !h.key.PublicKey.Equal(h.cert.PublicKey) || len(h.authorities) == 0) {
		return broken(path, "a part is missing")
	}
	*to = h
	return nil
}

func broken(path, why string) error {
	return fmt.Errorf("%s: %s: remove it, and start the edge with a new join token", path, why)
}

// write puts a file in place whole, readable by this user alone. It is there after a power cut: a
// key that is lost takes the join token with it, which is good for one key.
func (i *Identity) write(name string, h held) error {
	der, err := x509.MarshalPKCS8PrivateKey(h.key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{
		Type: "PRIVATE KEY", Headers: map[string]string{tokenHeader: h.token}, Bytes: der,
	})
	if h.cert != nil {
		for _, cert := range append([]*x509.Certificate{h.cert}, h.authorities...) {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
		}
	}
	if err := os.MkdirAll(i.cfg.Dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(i.cfg.Dir, ".identity-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(i.cfg.Dir, name)); err != nil {
		return err
	}
	return state.SyncDir(i.cfg.Dir)
}

// Joined is closed once there is a certificate. It stays closed.
func (i *Identity) Joined() <-chan struct{} { return i.joined }

// ID is the edge's id and region, empty before it has joined.
func (i *Identity) ID() (id, region string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	cert := i.held.cert
	if cert == nil {
		return "", ""
	}
	if l := cert.Subject.Locality; len(l) > 0 {
		region = l[0]
	}
	return cert.Subject.CommonName, region
}

// Expires returns when the certificate ends, the zero time before there is one.
func (i *Identity) Expires() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.held.cert == nil {
		return time.Time{}
	}
	return i.held.cert.NotAfter
}

// Trouble says, for people, why control planes refuse the edge or soon will; empty if they do not.
func (i *Identity) Trouble() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if cert := i.held.cert; cert != nil && i.cfg.Now().After(cert.NotAfter) {
		return fmt.Sprintf("the edge's certificate has ended at %s: make a join token and start the edge with it", cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return i.trouble
}

func (i *Identity) setTrouble(text string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.trouble = text
}

// Run joins, if the edge has to, and renews the certificate until ctx ends. It returns the error of
// ctx.
func (i *Identity) Run(ctx context.Context) error {
	if i.token != nil {
		if err := i.until(ctx, joinLeast, joinMost, "join", i.join); err != nil {
			return err
		}
		close(i.joined)
	}
	for {
		if err := i.awaitRenewal(ctx); err != nil {
			return err
		}
		if err := i.until(ctx, renewLeast, renewMost, "renew the edge's certificate", i.renew); err != nil {
			return err
		}
		if err := sleep(ctx, i.rest()); err != nil {
			return err
		}
	}
}

// awaitRenewal returns when the certificate is due to be renewed. It looks at the clock again and
// again, because a timer counts neither what the machine sleeps nor by how much its clock is set.
func (i *Identity) awaitRenewal(ctx context.Context) error {
	for {
		left := i.renewal().Sub(i.cfg.Now())
		if left <= 0 {
			return nil
		}
		if err := sleep(ctx, min(left, clockLook)); err != nil {
			return err
		}
	}
}

// rest is the least time between two renewals: by a clock that is days ahead each certificate is
// due at once.
func (i *Identity) rest() time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.held.cert.NotAfter.Sub(i.held.cert.NotBefore) / 100
}

// renewal returns when a third of the certificate's time is left.
func (i *Identity) renewal() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	cert := i.held.cert
	return cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / 3)
}

// until tries one control plane after the other until a call has succeeded.
func (i *Identity) until(
	ctx context.Context, least, most time.Duration, what string, try func(context.Context, string) error,
) error {
	for failures := 0; ; failures++ {
		address := i.cfg.Addresses[failures%len(i.cfg.Addresses)]
		err := i.attempt(ctx, address, try)
		if err == nil {
			i.setTrouble("")
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		text, _ := connfault.Of(status.Convert(err).Message())
		i.setTrouble(what + ": " + text)
		wait := time.Duration(mrand.Int64N(int64(min(most, least<<min(failures, 16)))))
		i.cfg.Logger.Warn("the edge cannot "+what, "address", address, "why", text, "retry_in",
			wait.Round(time.Millisecond))
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

func (i *Identity) attempt(ctx context.Context, address string, try func(context.Context, string) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return try(ctx, address)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join presents the token. The key is on the disk before, so that an edge whose answer was lost
// joins again with the same key.
func (i *Identity) join(ctx context.Context, address string) error {
	if i.joining.token != i.token.ID {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		next := held{key: key, token: i.token.ID}
		if err := i.write(joiningName, next); err != nil {
			return fmt.Errorf("keep the edge's key: %w", err)
		}
		i.joining = next
	}
	h := i.joining
	csr, err := request(h.key)
	if err != nil {
		return err
	}
	return call(address, i.joinTLS(), func(service edgev1.IdentityServiceClient) error {
		resp, err := service.Join(ctx, &edgev1.JoinRequest{Token: i.text, Csr: csr})
		if err != nil {
			return err
		}
		return i.take(h, resp.GetCertificate())
	})
}

// joinTLS returns the TLS settings to join with.
func (i *Identity) joinTLS() *tls.Config {
	conf := i.cfg.TLS.Clone()
	if conf == nil {
		conf = known([][sha256.Size]byte{i.token.Authority})
	}
	conf.GetClientCertificate = nil // it has none yet
	return conf
}

// First returns the TLS settings of the first connection of a start, and whether that one joins.
func (i *Identity) First() (conf *tls.Config, joins bool) {
	if i.token != nil {
		return i.joinTLS(), true
	}
	return i.TLS(), false
}

// renew asks for another certificate for the same key.
func (i *Identity) renew(ctx context.Context, address string) error {
	i.mu.Lock()
	h := i.held
	i.mu.Unlock()
	csr, err := request(h.key)
	if err != nil {
		return err
	}
	return call(address, i.TLS(), func(service edgev1.IdentityServiceClient) error {
		resp, err := service.Renew(ctx, &edgev1.RenewRequest{Csr: csr})
		if err != nil {
			return err
		}
		return i.take(h, resp.GetCertificate())
	})
}

// request returns a certificate signing request for a key. It does not say who the edge is, because
// the control plane knows.
func request(key *ecdsa.PrivateKey) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
}

func call(address string, conf *tls.Config, do func(edgev1.IdentityServiceClient) error) error {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		return err
	}
	defer conn.Close()
	err = do(edgev1.NewIdentityServiceClient(conn))
	if status.Code(err) == codes.Unimplemented {
		return errors.New("the control plane is too old to know edges that join")
	}
	return err
}

// take stores a certificate that a control plane has issued.
func (i *Identity) take(h held, given *edgev1.Certificate) error {
	cert, err := x509.ParseCertificate(given.GetCertificate())
	if err != nil {
		return fmt.Errorf("the certificate from the control plane: %w", err)
	}
	if !h.key.PublicKey.Equal(cert.PublicKey) || len(given.GetAuthorities()) == 0 {
		return errors.New("the certificate from the control plane is for another key, or has no authority")
	}
	h.cert, h.authorities = cert, nil
	for _, der := range given.GetAuthorities() {
		authority, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("an authority from the control plane: %w", err)
		}
		h.authorities = append(h.authorities, authority)
	}
	// It is used also where the disk does not take it: else the edge would be shut out when the one
	// before ends.
	i.mu.Lock()
	i.held = h
	i.mu.Unlock()
	if err := i.write(fileName, h); err != nil {
		return fmt.Errorf("keep the edge's certificate: %w", err)
	}
	os.Remove(filepath.Join(i.cfg.Dir, joiningName)) // It is no longer needed.
	i.cfg.Logger.Info("the edge has a certificate", "edge", cert.Subject.CommonName, "until",
		cert.NotAfter.UTC().Format(time.RFC3339))
	return nil
}

// TLS returns the TLS settings for control planes and their media listeners. It is for an edge that
// has joined.
func (i *Identity) TLS() *tls.Config {
	i.mu.Lock()
	h := i.held
	i.mu.Unlock()
	conf := i.cfg.TLS.Clone()
	if conf == nil {
		var hashes [][sha256.Size]byte
		for _, authority := range h.authorities {
			hashes = append(hashes, sha256.Sum256(authority.Raw))
		}
		conf = known(hashes)
	}
	conf.GetClientCertificate = nil
	if h.cert != nil {
		conf.Certificates = []tls.Certificate{{Certificate: [][]byte{h.cert.Raw}, PrivateKey: h.key, Leaf: h.cert}}
		// The certificate is shown whatever authorities the server names, because a control plane
		// may be behind the operator's proxy.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &conf.Certificates[0], nil
		}
	}
	return conf
}

// known returns settings that trust the holder of a certificate of one of the authorities, for the
// name that control planes have under it.
func known(authorities [][sha256.Size]byte) *tls.Config {
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The chain comes with its authority, and only its hash proves that this is the one:
		// VerifyConnection checks both.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return verify(state.PeerCertificates, authorities)
		},
	}
	if len(authorities) > 0 {
		conf.ServerName = jointoken.ServerName(authorities[0])
	}
	return conf
}

func verify(chain []*x509.Certificate, authorities [][sha256.Size]byte) error {
	if len(chain) == 0 {
		return errors.New("the control plane shows no certificate")
	}
	for _, authority := range authorities {
		roots := x509.NewCertPool()
		for _, cert := range chain[1:] {
			if sha256.Sum256(cert.Raw) == authority {
				roots.AddCert(cert)
			}
		}
		if _, err := chain[0].Verify(x509.VerifyOptions{
			DNSName: jointoken.ServerName(authority), Roots: roots,
		}); err == nil {
			return nil
		}
	}
	return errors.New("who answers is no control plane that the join token or the certificate knows: compare --control-plane, and the clocks")
}
