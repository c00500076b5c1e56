package admincli

import (
	"context"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

func (c *cli) domainsCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "domains",
		Short: "Say what custom domains need, and bring their certificates",
		Long: `Say what custom domains need: what to set in DNS so that a name is proven to be the account's and leads to the edges, and how its certificate stands. edgewalk
create domain makes a domain, edgewalk delete domain gives it up.`,
		Example: `  edgewalk create domain images.example.com -A acme
  edgewalk domains check images.example.com -A acme --wait 10m
  edgewalk domains upload images.example.com -A acme --cert fullchain.pem --key privkey.pem`,
	}, c.domainListCommand(), c.domainCheckCommand(), c.domainRenewCommand(), c.domainUploadCommand(),
		c.issuersCommand())
}

func (c *cli) domainUploadCommand() *cobra.Command {
	var cert, key string
	var wait waiting
	req := new(adminv1.UploadCertificateRequest)
	cmd := &cobra.Command{
		Use:   "upload NAME --cert FILE --key FILE",
		Short: "Bring a certificate for a custom domain",
		Long: `Bring a certificate with its key for a custom domain. Edges serve it as soon as they hear of it, in place of the one before, and without breaking
connections. The domain's tls.mode is UPLOADED from then on: nobody else renews the certificate.

The file of --cert holds the certificate and those of its issuers, as PEM, in any order. The certificate has to be good for NAME for another day at
least, and its key has to be RSA of 2,048 to 4,096 bits, or ECDSA on P-256 or P-384. The key is stored sealed, and nobody can read it again.

Here, --cert and --key are those of the domain. What this command shows to the control plane comes from EDGEWALK_CERT and EDGEWALK_KEY.`,
		Example: `  edgewalk domains upload images.example.com -A acme --cert fullchain.pem --key privkey.pem --wait
  edgewalk domains upload '*.example.com' -A acme --cert wild.pem --key wild.key --dry-run`,
		Args: exactly(1, "the name of a domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			if cert == "" || key == "" {
				return usagef("say which: --cert FILE --key FILE")
			}
			req.Name, req.RequestId = parent+"/customDomains/"+topology.DomainID(args[0]), c.requestID
			if req.CertificatePem, err = readPEM("--cert", cert); err != nil {
				return err
			}
			if req.PrivateKeyPem, err = readPEM("--key", key); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				done, err := adminv1.NewCustomDomainServiceClient(conn).UploadCertificate(ctx, req)
				if err != nil {
					return err
				}
				for _, warning := range done.GetWarnings() {
					fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+warning)
				}
				what := "uploaded"
				if req.GetValidateOnly() {
					what = "good (dry run)"
				}
				if err := c.print(cmd.OutOrStdout(), done, func() table {
					return table{rows: [][]string{{
						"certificate of " + done.GetCustomDomain().GetDomain() + " " + what,
					}}}
				}); err != nil || req.GetValidateOnly() {
					return err
				}
				return c.waitFor(cmd, conn, done.GetRevision(), wait)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&cert, "cert", "", "file with the certificate and those of its issuers, PEM")
	f.StringVar(&key, "key", "", "file with the private key, PEM, not encrypted")
	f.BoolVar(
		&req.AllowUntrusted,
		"allow-untrusted",
		false,
		"take a certificate whose issuer the control plane's machine does not know, as of an authority of your own",
	)
	f.BoolVar(&req.ValidateOnly, "dry-run", false, "only check")
	wait.addFlags(cmd)
	return cmd
}

// maxPEM is more than the control plane takes.
const maxPEM = 64 << 10

// readPEM reads the file of a flag.
func readPEM(flag, name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", flag, err)
	case len(b) > maxPEM:
		return "", fmt.Errorf("%s %s: it is too large to be a certificate or key", flag, name)
	case !utf8.Valid(b):
		return "", fmt.Errorf("%s %s: it is no text: give it as PEM, as `openssl x509 -inform der` and `openssl pkey -inform der` write it",
			flag, name)
	}
	return string(b), nil
}
