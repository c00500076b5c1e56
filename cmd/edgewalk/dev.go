package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/edgewalk/edgewalk/cmd/edgewalk/internal/dev"
	"github.com/edgewalk/edgewalk/controlplane"
	"github.com/edgewalk/edgewalk/internal/buildinfo"
)

func devCommand(log *slog.Logger) *cobra.Command {
	cfg := dev.Config{Logger: log, Version: buildinfo.Get().Version}
	upload := byteSize(controlplane.DefaultMaxUpload)
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, with a demo account",
		Long: `Run everything on this machine in one process: etcd, control plane, one edge, and two sample origins, with a demo account. It prints curl lines to try.

State is kept in --state-dir over restarts; --reset begins anew.

With --acme, a certificate authority of the demonstration's own gives its domains certificates, as one of the Internet would, and they are served over HTTPS at
--https-addr. The tour says which file to trust; that authority gives certificates for names below .localhost alone.`,
		Example: `  edgewalk dev
  edgewalk dev --reset
  edgewalk dev --http-addr 127.0.0.1:8090
  edgewalk dev --acme`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hangups := catchHangups()
			cfg.MaxUpload = int64(upload)
			cfg.Out = cmd.OutOrStdout()
			return answerHangups(cmd.Context(), log, hangups,
				func(ctx context.Context) error { return dev.Run(ctx, cfg) }, nothingToReopen)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.StateDir, "state-dir", dev.DefaultStateDir, "folder for all state")
	f.BoolVar(&cfg.Reset, "reset", false, "delete the state of earlier runs first")
	f.StringVar(&cfg.HTTPAddr, "http-addr", dev.DefaultHTTPAddr, "address of the edge's HTTP listener")
	f.BoolVar(&cfg.ACME, "acme", false, "serve the domains over HTTPS, with certificates of an authority for .localhost")
	f.StringVar(&cfg.HTTPSAddr, "https-addr", dev.DefaultHTTPSAddr, "address of the edge's HTTPS listener, with --acme")
	f.StringVar(&cfg.MetricsAddr, "metrics-addr", dev.DefaultMetricsAddr, "address of the edge's metrics and health")
	f.StringVar(&cfg.AdminAddr, "admin-addr", dev.DefaultAdminAddr, "address of the admin API")
	f.StringVar(&cfg.EdgeAddr, "edge-addr", dev.DefaultEdgeAddr, "address that edges connect to")
	f.StringVar(&cfg.StatusAddr, "status-addr", dev.DefaultStatusAddr,
		"address of the control plane's metrics and health")
	f.StringVar(&cfg.MediaAddr, "media-addr", dev.DefaultMediaAddr, "address of the Media Library's bytes")
	f.Var(&upload, "max-upload", "how much one file uploaded to a Media Library may take")
	return cmd
}
