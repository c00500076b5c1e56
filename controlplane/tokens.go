package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// openAuth reads the tokens. At the first start of an etcd it makes those with which everything
// begins, of the roles for which there is no file.
func (c *ControlPlane) openAuth(ctx context.Context, p parsed) error {
	cfg := &c.cfg
	for role, given := range map[auth.Role]bool{
		adminv1.Token_ROOT: p.adminTokens != nil, adminv1.Token_EDGE: p.edgeTokens != nil || cfg.RequireJoin,
	} {
		if given || cfg.Open {
			continue
		}
		file, err := auth.First(ctx, c.store, cfg.DataDir, role)
		if err != nil {
			return fmt.Errorf("--data-dir: %w", err)
		}
		if file != "" {
			cfg.Logger.Info("first start: made a token, which never expires and lies nowhere else", "role", role.String(), "file", file)
		}
	}
	var err error
	c.auth, err = auth.New(ctx, auth.Config{
		Store: c.store, AdminFile: p.adminTokens, EdgeFile: p.edgeTokens, Open: cfg.Open,
		Certificates:     cfg.ClientCA != "" && p.adminTokens == nil,
		EdgeCertificates: cfg.ClientCA != "" && p.edgeTokens == nil, Ended: c.feed.Ended, Logger: cfg.Logger,
		Registerer: c.registry,
	})
	return err
}

// checkEdge finds out whether a caller that has not joined is an edge all the same.
func (c *ControlPlane) checkEdge(
	ctx context.Context, authorization []string, certificate bool,
) (context.Context, error) {
	if c.cfg.RequireJoin {
		return ctx, auth.ErrMissing
	}
	return c.auth.CheckEdge(ctx, authorization, certificate)
}

// ResetRootToken makes another root token, writes it to the file root-token in cfg.DataDir, and
// ends all that there were, which it counts. It uses the folder as a control plane does, so none
// may run on it; with EtcdEndpoints any number may.
func ResetRootToken(ctx context.Context, cfg Config) (file string, revoked int, err error) {
	cfg.setDefaults()
	if len(cfg.EtcdEndpoints) == 0 {
		if _, err := os.Stat(filepath.Join(cfg.DataDir, etcdFolder)); err != nil {
			return "", 0, fmt.Errorf("--data-dir %s: no control plane has run on it", cfg.DataDir)
		}
	} else if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return "", 0, fmt.Errorf("--data-dir: %w", err)
	}
	c := &ControlPlane{cfg: cfg, registry: prometheus.NewRegistry()}
	defer c.close()
	if err := c.openStore(ctx); err != nil {
		return "", 0, err
	}
	return auth.Reset(ctx, c.store, cfg.DataDir)
}

// rootTokenFile is where admins on this machine find the token of a first start, if that was one of
// this data folder.
func (c *ControlPlane) rootTokenFile() string {
	file, err := filepath.Abs(auth.FileOf(c.cfg.DataDir, adminv1.Token_ROOT))
	if err != nil {
		return ""
	}
	return file
}
