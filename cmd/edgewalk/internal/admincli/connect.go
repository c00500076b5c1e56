package admincli

import (
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
)

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// adminPort is that of the admin API's default address.
const adminPort = "7070"

// dial opens a connection to the control plane. `https://` in front of the address, or --ca, asks for TLS.
func (c *cli) dial() (*grpc.ClientConn, error) {
	address, secure := strings.CutPrefix(c.server, "https://")
	address = strings.TrimSuffix(strings.TrimPrefix(address, "http://"), "/")
	if address == "" {
		return nil, usagef("--server is empty: name the address of the control plane's admin API")
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), adminPort)
	}
	opts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if secure || c.ca != "" {
		conf := &tls.Config{MinVersion: tls.VersionTLS12}
		if c.ca != "" {
			pem, err := os.ReadFile(c.ca)
			if err != nil {
				return nil, fmt.Errorf("read --ca: %w", err)
			}
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("read --ca %s: it holds no PEM certificate", c.ca)
			}
		}
		secure = true
		opts[0] = grpc.WithTransportCredentials(credentials.NewTLS(conf))
	}
	if token := os.Getenv("EDGEWALK_TOKEN"); token != "" {
		if !secure && !loopback(address) {
			return nil, usagef("EDGEWALK_TOKEN would travel in the clear to %s: use --ca FILE or --server https://%s", address, address)
		}
		opts = append(opts, grpc.WithPerRPCCredentials(bearer(strings.TrimSpace(token))))
	}
	return grpc.NewClient("passthrough:///"+address, opts...)
}

// loopback reports whether address stays on this machine.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// bearer is a static token. dial decides where it may go, so it asks for no transport security itself.
type bearer string

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials].
func (b bearer) RequireTransportSecurity() bool { return false }

// with dials, calls do, and explains its error.
func (c *cli) with(ctx context.Context, do func(ctx context.Context, conn *grpc.ClientConn) error) error {
	if err := c.checkOutput(); err != nil {
		return err
	}
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	return c.explainError(do(ctx, conn))
}
