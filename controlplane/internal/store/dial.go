package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
)

// DialConfig says how to reach etcd.
type DialConfig struct {
	// Endpoints are addresses such as `http://127.0.0.1:2379`, `https://etcd-1:2379` or
	// `unix:///run/etcd.sock`.
	Endpoints []string
	// CACert is the file of the authorities that endpoints are checked against. Default: the
	// system's.
	CACert string
	// Cert and Key are files with the certificate that we show. Both or neither.
	Cert, Key string
	// User, and the file that holds its password, for clusters with authentication. The file is
	// read again for each login.
	User, PasswordFile string
}

// loginTimeout bounds the wait for etcd's answer to a user and password, for which its client has
// no bound of its own.
const loginTimeout = 5 * time.Second

// Dial returns a client of an etcd cluster, without waiting for an answer unless there is a user to
// log in. Half-open connections are noticed within 13 s, and members that are back within 5 s.
func Dial(cfg DialConfig) (*clientv3.Client, error) {
	config := clientv3.Config{
		Endpoints:            cfg.Endpoints,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		DialTimeout:          loginTimeout,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			// The defaults are 20 s for an attempt and, after an outage of some minutes, 2 min
			// between two.
			Backoff: grpcbackoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second,
			},
			MinConnectTimeout: 4 * time.Second,
		})},
		Username: cfg.User,
		Logger:   zap.NewNop(),
	}
	if (cfg.User == "") != (cfg.PasswordFile == "") {
		return nil, errors.New("a user of etcd and the file of its password go together")
	}
	if cfg.PasswordFile != "" {
		var err error
		if config.Password, err = readPassword(cfg.PasswordFile); err != nil {
			return nil, err
		}
		config.DialOptions = append(config.DialOptions, grpc.WithChainUnaryInterceptor(cfg.logIn))
	}
	secure, err := dialTLS(cfg)
	if err != nil {
		return nil, fmt.Errorf("read certificates for etcd: %w", err)
	}
	config.TLS = secure
	client, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	return client, nil
}

func readPassword(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read password of etcd: %w", err)
	}
	password := strings.TrimRight(string(content), "\r\n")
	if password == "" {
		return "", fmt.Errorf("read password of etcd: %s is empty", file)
	}
	return password, nil
}

// logIn puts the password that the file has now into each login. The client of etcd logs in again
// whenever its token is refused, as after a change of the password.
func (cfg DialConfig) logIn(
	ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	if login, ok := req.(*etcdserverpb.AuthenticateRequest); ok {
		password, err := readPassword(cfg.PasswordFile)
		if err != nil {
			return err
		}
		login.Password = password
	}
	return invoke(ctx, method, req, reply, conn, opts...)
}

func dialTLS(cfg DialConfig) (*tls.Config, error) {
	https := false
	for _, endpoint := range cfg.Endpoints {
		https = https || strings.HasPrefix(endpoint, "https://")
	}
	if !https && cfg.CACert == "" && cfg.Cert == "" {
		return nil, nil
	}
	info := transport.TLSInfo{TrustedCAFile: cfg.CACert, CertFile: cfg.Cert, KeyFile: cfg.Key}
	return info.ClientConfig()
}

// Unreachable says why no endpoint can be reached, which the client of etcd keeps to itself, and
// nil if one can.
func (cfg DialConfig) Unreachable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	secure, err := dialTLS(cfg)
	if err != nil {
		return err
	}
	var all error
	for _, endpoint := range cfg.Endpoints {
		if err := reach(ctx, endpoint, secure); err != nil {
			all = errors.Join(all, err)
			continue
		}
		return nil
	}
	return all
}

func reach(ctx context.Context, endpoint string, secure *tls.Config) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return nil // not an address that this can judge
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	if u.Scheme != "https" {
		return nil
	}
	secure = secure.Clone()
	secure.ServerName = u.Hostname()
	if err := tls.Client(conn, secure).HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%s: %w", u.Host, err)
	}
	return nil
}
