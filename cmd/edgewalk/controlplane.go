package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/edgewalk/edgewalk/controlplane"
	"github.com/edgewalk/edgewalk/internal/preflight"
)

func controlplaneCommand() *cobra.Command {
	cfg := controlplane.Config{}
	upload := byteSize(controlplane.DefaultMaxUpload)
	var logging *logOptions
	check := false
	cmd := &cobra.Command{
		Use:   "controlplane",
		Short: "Keep the topology and stream it to edges",
		Long: `Keep the topology (accounts, origins, URL-endpoints, domains, media, purges) in etcd, offer the admin API, and stream every change to every edge.

etcd is embedded and keeps its data in --data-dir, unless --etcd-endpoints names a cluster. Any number of control planes may share a cluster and a media bucket.`,
		Example: `  edgewalk controlplane --shared-host cdn.example.com
  edgewalk controlplane --etcd-endpoints https://etcd-1:2379,https://etcd-2:2379 --etcd-cacert ca.pem --media-url s3://edgewalk-media?region=eu-central-1 \
      --admin-addr :7070 --edge-addr :7071 --media-addr :7073 --media-advertise-url https://cp.internal:7073 \
      --tls-cert cp.pem --tls-key cp.key --admin-token-file admin.token --edge-token-file edge.token`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logging.logger(cmd)
			if err != nil {
				return err
			}
			cfg.Logger = log
			warnOfUnknown(cmd, os.Environ(), log)
			cfg.MaxUpload = int64(upload)
			if check {
				return preflight.Run(cmd.Context(), cmd.OutOrStdout(), cfg.Checks())
			}
			hangups := catchHangups()
			c, err := controlplane.New(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			return answerHangups(cmd.Context(), log, hangups, reporting(log, c.State, c.Run), nothingToReopen)
		},
	}
	f := cmd.Flags()
	f.StringVar(
		&cfg.DataDir,
		"data-dir",
		controlplane.DefaultDataDir,
		"folder for the embedded etcd and the media bucket",
	)
	addStoreFlags(f, &cfg)
	f.StringVar(&cfg.AdminAddr, "admin-addr", controlplane.DefaultAdminAddr, "address of the admin API")
	f.StringVar(&cfg.EdgeAddr, "edge-addr", controlplane.DefaultEdgeAddr, "address that edges connect to")
	f.StringVar(
		&cfg.HTTPAddr,
		"http-addr",
		controlplane.DefaultHTTPAddr,
		"address of the REST API, the dashboard, /metrics, /healthz and /readyz",
	)
	f.StringSliceVar(
		&cfg.DashboardHosts,
		"dashboard-host",
		nil,
		"host name by which browsers and programs may call the REST API and the dashboard; repeatable (default only the address itself)",
	)
	f.BoolVar(&cfg.NoDashboard, "no-dashboard", false, "serve no dashboard")
	f.StringVar(
		&cfg.MediaAddr,
		"media-addr",
		controlplane.DefaultMediaAddr,
		"address that edges read Media Libraries from",
	)
	f.StringVar(
		&cfg.PeerAddr,
		"peer-addr",
		controlplane.DefaultPeerAddr,
		"address that other control planes of the same --etcd-endpoints reach this one at",
	)
	f.StringVar(
		&cfg.FreezeAfter,
		"freeze-after",
		controlplane.DefaultFreezeAfter,
		"freeze all edges before a revision that more than so many and such a share of them refuse, or off",
	)
	f.StringVar(&cfg.CanaryRegion, "canary-region", "", "region whose edges hear of a change first (default none)")
	f.DurationVar(
		&cfg.CanaryHold,
		"canary-hold",
		controlplane.DefaultCanaryHold,
		"how long the other regions wait for it",
	)
	f.StringVar(
		&cfg.MediaAdvertiseURL,
		"media-advertise-url",
		"",
		"URL under which edges reach --media-addr (default by that address)",
	)
	f.StringVar(
		&cfg.MediaURL,
		"media-url",
		"",
		"media bucket: file:///folder or s3://bucket?region=... (default media in --data-dir)",
	)
	f.Var(&upload, "max-upload", "how much one file uploaded to a Media Library may take")
	f.StringVar(
		&cfg.SharedHost,
		"shared-host",
		"",
		"host[:port] under which every account is served; kept from the first start on (default localhost)",
	)
	f.BoolVar(&cfg.ReplaceSharedHost, "replace-shared-host", false, "let --shared-host replace the one that is kept")
	f.StringVar(
		&cfg.DomainVerification,
		"domain-verification",
		"",
		"whose domains are served only once proven: tenants (made with a token of an account), all or off (default tenants)",
	)
	f.StringVar(
		&cfg.DomainTarget,
		"domain-target",
		"",
		"name below which each account has a host of its own for CNAME records; *.NAME has to lead to the edges (default none)",
	)
	f.StringSliceVar(
		&cfg.DNSResolvers,
		"dns-resolvers",
		nil,
		"address[:port] of recursive DNS resolvers (default those of this machine)",
	)
	f.StringArrayVar(
		&cfg.ACMEIssuers,
		"acme-issuer",
		nil,
		"authority for certificates of domains: name=le,directory=URL, and as wanted profile=, eab-kid=, eab-key-file=, orders-per-3h=; repeatable (default none)",
	)
	f.BoolVar(
		&cfg.ACMEAgreeTOS,
		"acme-agree-tos",
		false,
		"agree to the terms of service of every --acme-issuer, which they ask for",
	)
	f.StringVar(&cfg.ACMEEmail, "acme-email", "", "address that issuers may write to (default none)")
	f.StringVar(
		&cfg.ACMECAFile,
		"acme-ca-file",
		"",
		"file with the CA certificates that issuers are known by, PEM (default those of this machine)",
	)
	f.StringVar(
		&cfg.ACMEDNSZone,
		"acme-dns-zone",
		"",
		"zone that _acme-challenge records of domains lead into, for certificates of wildcards and before names lead here (default none)",
	)
	f.StringVar(
		&cfg.ACMEDNSAddr,
		"acme-dns-addr",
		"",
		"address of the name server for --acme-dns-zone, over UDP and TCP (default none)",
	)
	f.StringSliceVar(
		&cfg.ACMEDNSServers,
		"acme-dns-ns",
		nil,
		"name of a name server of --acme-dns-zone, as its parent has it; repeatable (default ns.ZONE at --acme-dns-addr)",
	)
	f.StringVar(
		&cfg.ACMEDNSHook,
		"acme-dns-hook",
		"",
		"program that sets TXT records for wildcards, run as HOOK present|cleanup NAME VALUE (default none)",
	)
	f.StringVar(
		&cfg.TLSCert,
		"tls-cert",
		"",
		"file with the certificate of all listeners, PEM, read again when it changes",
	)
	f.StringVar(&cfg.TLSKey, "tls-key", "", "file with the key of --tls-cert")
	f.StringVar(
		&cfg.ClientCA,
		"client-ca",
		"",
		"file with CA certificates; admins and edges must show a certificate of theirs",
	)
	f.StringVar(
		&cfg.AuditLog,
		"audit-log",
		"",
		"file for calls that are denied or let the caller have what is secret, or syslog (default audit.log in --data-dir)",
	)
	f.StringVar(
		&cfg.AdminTokenFile,
		"admin-token-file",
		"",
		"file with tokens of role root, one a line, instead of root-token in --data-dir; read again when it changes",
	)
	f.StringVar(
		&cfg.EdgeTokenFile,
		"edge-token-file",
		"",
		"file with tokens of edges that have not joined, one a line, instead of edge-token in --data-dir; read again when it changes",
	)
	f.BoolVar(
		&cfg.RequireJoin,
		"require-join",
		false,
		"refuse edges that have not joined; --edge-addr and --media-addr may be any address then",
	)
	f.BoolVar(
		&cfg.InsecureListen,
		"insecure-listen",
		false,
		"let listeners be on any address without TLS, so that tokens travel in the clear",
	)
	f.BoolVar(
		&cfg.AllowShrink,
		"allow-shrink",
		false,
		"let edges replace their topology by one less than half its size",
	)
	f.StringVar(
		&cfg.DebugAddr,
		"debug-addr",
		"",
		"address on loopback of Go's profiles and the state in words (default none)",
	)
	f.BoolVar(
		&check,
		"check",
		false,
		"look at flags, files, addresses, folders and etcd, say what is wrong, and end; changes nothing",
	)
	logging = addLogFlags(cmd)
	useEnvironment(cmd)
	return cmd
}

func restoreCommand() *cobra.Command {
	cfg := controlplane.Config{}
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Bring a saved topology back",
		Long: `Make the data folder of a control plane from a saved topology. The folder must not have any yet, and nothing may run on it. Every edge then takes the restored
topology, whatever it had. Secrets in a snapshot are sealed: the control plane needs the key file of the one that it was saved from. A cluster of your own is restored with etcdutl, by whatever flags: see docs/etcd.md.`,
		Example: "  edgewalk snapshot restore edgewalk.snapshot --data-dir ./edgewalk-data",
		RunE: func(cmd *cobra.Command, args []string) error {
			missing, err := controlplane.Restore(cmd.Context(), cfg, args[0])
			if err != nil {
				return err
			}
			if missing != "" {
				cmd.Printf(
					"restored into %s; put the secret key of the control plane that saved it at %s, then start the control plane\n",
					cfg.DataDir,
					missing,
				)
				return nil
			}
			cmd.Printf("restored into %s; start the control plane on it\n", cfg.DataDir)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.DataDir, "data-dir", controlplane.DefaultDataDir, "folder of the control plane")
	f.StringVar(&cfg.EtcdPrefix, "etcd-prefix", controlplane.DefaultEtcdPrefix, "what stands before every key")
	f.StringVar(
		&cfg.SecretKeyFile,
		"secret-key-file",
		"",
		"file with the key of the control plane that the snapshot was saved from, to see that it fits (default secret-key in --data-dir, if it is there)",
	)
	return cmd
}

// addStoreFlags adds the flags that say where etcd is, and with what its secrets are read.
func addStoreFlags(f *pflag.FlagSet, cfg *controlplane.Config) {
	f.StringSliceVar(
		&cfg.EtcdEndpoints,
		"etcd-endpoints",
		nil,
		"etcd cluster to use instead of the embedded server, version 3.4 or newer",
	)
	f.StringVar(&cfg.EtcdCACert, "etcd-cacert", "", "file with the CA certificates of the etcd cluster")
	f.StringVar(&cfg.EtcdCert, "etcd-cert", "", "file with the certificate shown to the etcd cluster")
	f.StringVar(&cfg.EtcdKey, "etcd-key", "", "file with the key of --etcd-cert")
	f.StringVar(&cfg.EtcdUser, "etcd-user", "", "user of the etcd cluster")
	f.StringVar(&cfg.EtcdPasswordFile, "etcd-password-file", "", "file with the password of --etcd-user")
	f.StringVar(&cfg.EtcdPrefix, "etcd-prefix", controlplane.DefaultEtcdPrefix, "what stands before every key")
	f.StringVar(
		&cfg.SecretKeyFile,
		"secret-key-file",
		"",
		"file with the key that protects the secrets in etcd, the same for all control planes of an etcd; made at the first start (default secret-key in --data-dir; required with --etcd-endpoints)",
	)
}

func resetCommand() *cobra.Command {
	cfg := controlplane.Config{}
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Make a new root token, and end those that there were",
		Long: `Make a new root token where etcd is, write it to root-token in --data-dir, and end every root token that there was: when the last one is lost, or stolen. No
control plane may run on the folder meanwhile; those of a cluster that --etcd-endpoints names go on. Tokens of other roles stay.`,
		Example: `  edgewalk token reset --data-dir ./edgewalk-data
  edgewalk token reset --data-dir . --etcd-endpoints https://etcd-1:2379 --etcd-cacert ca.pem --secret-key-file key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, revoked, err := controlplane.ResetRootToken(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			cmd.Printf("%s has a new root token; %d before it ended\n", file, revoked)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.DataDir, "data-dir", controlplane.DefaultDataDir, "folder of the control plane")
	addStoreFlags(f, &cfg)
	return cmd
}
