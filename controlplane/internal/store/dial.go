package store

import (
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
)

// DialConfig says how to reach etcd.
type DialConfig struct {
	// Endpoints are addresses such as `http://127.0.0.1:2379`, `https://etcd-1:2379` or `unix:///run/etcd.sock`.
	Endpoints []string
	// CACert is the file of the authorities that endpoints are checked against. Default: the system's.
	CACert string
	// Cert and Key are files with the certificate that we show. Both or neither.
	Cert, Key string
	// User, and the file that holds its password, for clusters with authentication.
	User, PasswordFile string
}

// Dial returns a client of an etcd cluster, without waiting for an answer. Half-open connections are noticed within 13 s, and
// members that are back within 5 s.
func Dial(cfg DialConfig) (*clientv3.Client, error) {
	config := clientv3.Config{
		Endpoints:            cfg.Endpoints,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			// The defaults are 20 s for an attempt and, after an outage of some minutes, 2 min between two.
			Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 4 * time.Second,
		})},
		Username: cfg.User,
		Logger:   zap.NewNop(),
	}
	if cfg.PasswordFile != "" {
		password, err := os.ReadFile(cfg.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read password of etcd: %w", err)
		}
		config.Password = strings.TrimRight(string(password), "\r\n")
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
