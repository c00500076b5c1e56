package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/edgewalk/edgewalk/edgeagent"
	"github.com/edgewalk/edgewalk/internal/buildinfo"
	"github.com/edgewalk/edgewalk/internal/preflight"
)

func edgeagentCommand() *cobra.Command {
	cfg := edgeagent.Config{Version: buildinfo.Get().Version}
	size, certStore := byteSize(edgeagent.DefaultCacheSize), byteSize(edgeagent.DefaultCertStoreSize)
	var logging *logOptions
	check := false
	cmd := &cobra.Command{
		Use:   "edgeagent",
		Short: "Serve files to clients",
		Long: `Serve files to clients from the disk cache and from origins, by the topology that a control plane streams. The last topology is kept on disk, so an edge
serves without a control plane too, also after a restart.

It may be stopped at any time: requests that are being answered are finished, for at most 30 s. --state-dir may be deleted while it does not run; it then needs a control plane once.
SIGHUP and SIGUSR1 open the --access-log again, for those who rotate it.

With --otlp-endpoint, each walk is a span, and so is each of its steps. They are in the trace that a --trusted-proxies names in traceparent, and web origins are sent traceparent for theirs.
OTEL_TRACES_SAMPLER=parentbased_traceidratio and OTEL_TRACES_SAMPLER_ARG=0.01 trace one of a hundred; OTEL_EXPORTER_OTLP_HEADERS and the other variables of OpenTelemetry's SDKs count too.`,
		Example: `  edgewalk edgeagent --control-plane 127.0.0.1:7071 --region eu --state-dir ./edge-eu
  edgewalk edgeagent --control-plane cp1:7071,cp2:7071 --join-token-file edge.token --http-addr :80 --state-dir /var/lib/edgewalk
  edgewalk edgeagent --control-plane cp1:7071,cp2:7071 --ca ca.pem --edge-token-file token --http-addr :80 --https-addr :443 \
      --tls-cert site.pem --tls-key site.key --state-dir /var/lib/edgewalk --cache-dir /cache --cache-size 200GiB`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logging.logger(cmd)
			if err != nil {
				return err
			}
			cfg.Logger = log
			warnOfUnknown(cmd, os.Environ(), log)
			cfg.CacheSize, cfg.CertStoreSize = int64(size), int64(certStore)
			if cfg.AccessLogSample == 0 {
				return errors.New("--access-log-sample 0: more than 0, at most 1; for no lines leave --access-log out")
			}
			if check {
				return preflight.Run(cmd.Context(), cmd.OutOrStdout(), cfg.Checks())
			}
			hangups := catchHangups()
			agent, err := edgeagent.New(cfg)
			if err != nil {
				return err
			}
			return answerHangups(cmd.Context(), log, hangups, reporting(log, agent.State, agent.Run),
				agent.ReopenAccessLog)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&cfg.ControlPlane, "control-plane", []string{edgeagent.DefaultControlPlane}, "addresses of control planes, one of which is enough at a time")
	f.StringVar(&cfg.HTTPAddr, "http-addr", edgeagent.DefaultHTTPAddr, "address of the HTTP listener, off for none, systemd:NAME for a socket of systemd")
	f.StringVar(&cfg.HTTPSAddr, "https-addr", "", "address of the HTTPS listener, or systemd:NAME (default none)")
	f.StringArrayVar(&cfg.TLSCerts, "tls-cert", nil, "file with a certificate chain for --https-addr, PEM, read again when it changes (repeatable)")
	f.StringArrayVar(&cfg.TLSKeys, "tls-key", nil, "file with the key of the --tls-cert at the same place (repeatable)")
	f.StringVar(&cfg.MetricsAddr, "metrics-addr", edgeagent.DefaultMetricsAddr,
		"address of /metrics, /healthz and /readyz")
	f.StringVar(&cfg.StateDir, "state-dir", edgeagent.DefaultStateDir, "folder for the last good topology and the id")
	f.StringVar(&cfg.StateKeyFile, "state-key-file", "", "file with the key that protects the origins' secrets in --state-dir (default state-key in --state-dir, made at the first start)")
	f.StringVar(&cfg.CacheDir, "cache-dir", "", "folder for replies (default cache in --state-dir)")
	f.Var(&size, "cache-size", "how much of the disk replies may take")
	f.Var(&certStore, "cert-store-size", "how much of --state-dir certificates of custom domains may take; a million take about 1.3 GB")
	f.IntVar(&cfg.CertCache, "cert-cache", edgeagent.DefaultCertCache, "how many certificates of custom domains are kept ready in memory, about 1.5 kB each")
	f.StringVar(&cfg.Region, "region", edgeagent.DefaultRegion, "where the edge is")
	f.StringVar(&cfg.ID, "id", "", "name of the edge (default random, kept in --state-dir)")
	f.StringVar(&cfg.EdgeTokenFile, "edge-token-file", "", "file with the token that control planes ask for; read again when it changes")
	f.StringVar(&cfg.JoinTokenFile, "join-token-file", "", "file with a token of \"edgewalk edges join-token\": the edge joins with it once, and then has a certificate in --state-dir")
	f.StringVar(&cfg.CA, "ca", "", "file with the CA certificates of control planes, or system; the stream then uses TLS (default the authority that the join token names)")
	f.StringVar(&cfg.Cert, "cert", "", "file with the certificate shown to control planes that ask for one, PEM, read at each connection")
	f.StringVar(&cfg.Key, "key", "", "file with the key of --cert")
	f.BoolVar(&cfg.AccountHosts, "account-hosts", false, "serve each account also at {account}.{shared host}, unless its id has a _ or ends with a -")
	f.BoolVar(&cfg.AllowPrivateOrigins, "allow-private-origins", false,
		"let origins have loopback and private addresses")
	f.StringSliceVar(&cfg.AllowOriginCIDRs, "allow-origin-cidr", nil,
		"let origins have addresses in this range (repeatable)")
	f.BoolVar(&cfg.AllowAmbientCredentials, "allow-ambient-credentials", false, "let S3 origins read what this machine may read (use_ambient_credentials)")
	f.BoolVar(&cfg.VerifyOriginTLS, "verify-origin-tls", false, "refuse web origins whose certificate is not to be checked (tls_verify: false)")
	f.StringSliceVar(&cfg.TrustedProxies, "trusted-proxies", nil, "ranges of proxies whose X-Forwarded-For is believed, in the access log, for origins that are told, and for limits per client")
	f.Float64Var(&cfg.AccessLogSample, "access-log-sample", 1,
		"share of requests that have a line in --access-log, 0 < share <= 1; errors (5xx) always have")
	f.IntVar(&cfg.MetricsMaxSeries, "metrics-max-series", 2000,
		"series of metrics about one endpoint or origin; what is beyond is counted as account other")
	f.StringVar(&cfg.AccessLog, "access-log", "", "file for a line of JSON for each request, - for standard output")
	f.BoolVar(&cfg.InsecureListen, "insecure-listen", false, "let --metrics-addr be any address, and the token travel in the clear")
	f.StringVar(&cfg.DebugAddr, "debug-addr", "", "address on loopback of Go's profiles and the state in words (default none)")
	f.StringVar(&cfg.OTLPEndpoint, "otlp-endpoint", "", "URL of an OpenTelemetry collector that is sent traces of walks by OTLP/gRPC, such as http://127.0.0.1:4317 (default none)")
	f.BoolVar(&check, "check", false, "look at flags, files, addresses, folders and control planes, say what is wrong, and end; changes nothing")
	logging = addLogFlags(cmd)
	useEnvironment(cmd)
	return cmd
}
