package admincli

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/edgewalk/edgewalk/internal/listen"
)

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// adminPort is that of the admin API's default address.
const adminPort = "7070"

// secure reports whether TLS is asked for.
func (c *cli) secure() bool {
	return strings.HasPrefix(c.server, "https://") || c.ca != "" || c.authorities != "" || c.cert != "" || c.key != ""
}

// dial opens a connection to the control plane, as whoever the environment, a context, or a file of
// this machine says.
func (c *cli) dial(ctx context.Context) (*grpc.ClientConn, error) {
	if err := c.chooseContext(); err != nil {
		return nil, err
	}
	token := cmp.Or(strings.TrimSpace(os.Getenv("EDGEWALK_TOKEN")), c.token)
	address := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(c.server, "https://"), "http://"), "/")
	if address == "" {
		return nil, usagef("--server is empty: name the address of the control plane's admin API")
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), adminPort)
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(c.identify),
	}
	if c.secure() {
		conf, err := c.tlsConfig()
		if err != nil {
			return nil, err
		}
		opts[0] = grpc.WithTransportCredentials(credentials.NewTLS(conf))
	}
	if token != "" && !c.secure() && !listen.Loopback(address) {
		return nil, usagef("EDGEWALK_TOKEN would travel in the clear to %s: use --ca FILE or --server https://%s", address, address)
	}
	credential := &presented{token}
	conn, err := grpc.NewClient("passthrough:///"+address, append(opts, grpc.WithPerRPCCredentials(credential))...)
	if err == nil && token == "" && listen.Loopback(address) {
		credential.token = c.localToken(ctx, conn)
	}
	return conn, err
}

func (c *cli) tlsConfig() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case c.ca != "":
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, fmt.Errorf("read --ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read --ca %s: it holds no PEM certificate", c.ca)
		}
	case c.authorities != "":
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM([]byte(c.authorities)) {
			return nil, fmt.Errorf("context %s: its CA is no PEM certificate: log in again", c.context)
		}
	}
	if c.cert == "" && c.key == "" {
		return conf, nil
	}
	if c.cert == "" || c.key == "" {
		return nil, usagef("--cert and --key go together")
	}
	cert, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("read --cert %s and --key %s: %w", c.cert, c.key, err)
	}
	conf.Certificates = []tls.Certificate{cert}
	return conf, nil
}

// presented presents a token, unless it is empty. dial decides where it may go, so it asks for no
// transport security itself.
type presented struct{ token string }

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (p *presented) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if p.token == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + p.token}, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials].
func (p *presented) RequireTransportSecurity() bool { return false }

// with dials, calls do, and explains its error.
func (c *cli) with(ctx context.Context, do func(ctx context.Context, conn *grpc.ClientConn) error) error {
	if err := c.checkOutput(); err != nil {
		return err
	}
	if _, err := c.commandID(); err != nil {
		return err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return c.explainError(do(ctx, conn))
}
