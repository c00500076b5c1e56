package admincli

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/internal/shellword"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func (c *cli) domainListCommand() *cobra.Command {
	var filter string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List an account's domains with what is known of them",
		Long: `List an account's custom domains: whether the name is proven to be the account's, where it leads, and the certificate with the days that it is good for and the edges that have it.

--filter takes FIELD = VALUE and FIELD != VALUE, several joined by AND, of state, mode, urlEndpoint, ownership.state, routing.state, certificate.state and
certificate.issuer.`,
		Example: `  edgewalk domains ls -A acme
  edgewalk domains ls -A acme --filter 'certificate.state != ISSUED'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				client := adminv1.NewCustomDomainServiceClient(conn)
				all := new(adminv1.ListCustomDomainsResponse)
				for token := ""; ; token = all.GetNextPageToken() {
					page, err := client.ListCustomDomains(ctx, &adminv1.ListCustomDomainsRequest{
						Parent: parent, Filter: filter, PageToken: token, PageSize: 1000,
					})
					if err != nil {
						return err
					}
					all.CustomDomains = append(all.CustomDomains, page.GetCustomDomains()...)
					if all.NextPageToken, all.Revision = page.GetNextPageToken(),
						page.GetRevision(); all.NextPageToken == "" {
						break
					}
				}
				return c.print(cmd.OutOrStdout(), all, func() table {
					t := table{
						head: []string{
							"DOMAIN",
							"STATE",
							"OWNERSHIP",
							"ROUTING",
							"CERTIFICATE",
							"DAYS",
							"EDGES",
							"+ISSUER",
							"+NEXT LOOK",
						},
					}
					for _, d := range all.GetCustomDomains() {
						t.rows = append(t.rows, domainFactsRow(d, time.Now()))
					}
					return t
				})
			})
		},
	}
	cmd.Flags().StringVar(&filter, "filter", "", "only domains that it is true of")
	return cmd
}

func domainFactsRow(d *topologyv1.CustomDomain, now time.Time) []string {
	cert := d.GetCertificate()
	next := ""
	if at := d.GetRouting().GetNextCheck(); at != nil {
		next = "in " + roughly(at.AsTime().Sub(now))
	}
	return []string{
		d.GetDomain(), d.GetState().String(), d.GetOwnership().GetState().String(), d.GetRouting().GetState().String(),
		cert.GetState().String(), daysLeft(cert, now), edgesServing(cert), cert.GetIssuer(), next,
	}
}

// edgesServing is empty where there is no certificate, or no edge to show it.
func edgesServing(cert *topologyv1.DomainCertificate) string {
	if cert.GetEdges().GetTotal() == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d", cert.GetEdges().GetServing(), cert.GetEdges().GetTotal())
}

// daysLeft is empty where there is no certificate.
func daysLeft(cert *topologyv1.DomainCertificate, now time.Time) string {
	if cert.GetNotAfter() == nil {
		return ""
	}
	return fmt.Sprint(int(math.Floor(cert.GetNotAfter().AsTime().Sub(now).Hours() / 24)))
}

// notReadyError ends a check of a domain that is not ready, which has been printed.
type notReadyError struct{ name string }

func (e *notReadyError) Error() string { return e.name + " is not ready yet" }

func (c *cli) domainCheckCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "check NAME",
		Short: "Ask DNS about a domain now, and say what to set",
		Long: `Ask DNS about a custom domain now: whether the name is proven to be the account's, whether it leads to the edges, and whether a certificate is there. What is
missing is said as records to set. A domain whose ownership is seen to be proven is served from then on. NAME need not be a domain of the account yet.

Ends with 0 when the domain is ready, with 1 when it is not yet, and with 2 for a wrong use.`,
		Example: `  edgewalk domains check images.example.com -A acme
  edgewalk domains check images.example.com -A acme --wait 10m`,
		Args: exactly(1, "the name of a domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			if wait < 0 || wait > 10*time.Minute {
				return usagef("--wait %s: want at most 10m", wait)
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				req := &adminv1.CheckCustomDomainRequest{Parent: parent, Domain: args[0], Wait: durationpb.New(wait)}
				resp, err := adminv1.NewCustomDomainServiceClient(conn).CheckCustomDomain(ctx, req)
				if err != nil {
					return err
				}
				if c.output == "table" || c.output == "wide" || c.output == "" {
					err = writeCheck(cmd.OutOrStdout(), parent, resp, time.Now())
				} else {
					err = c.print(cmd.OutOrStdout(), resp, nil)
				}
				if err == nil && !resp.GetReady() {
					return &notReadyError{resp.GetCustomDomain().GetDomain()}
				}
				return err
			})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "look again until the domain is ready, at most so long, up to 10m")
	return cmd
}

func (c *cli) domainRenewCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "renew NAME",
		Short:   "Order a domain's certificate anew",
		Long:    `Have the certificate of a custom domain ordered anew, now, if the limits of its issuer allow that. Certificates are renewed by themselves long before they end.`,
		Example: `  edgewalk domains renew images.example.com -A acme`,
		Args:    exactly(1, "the name of a domain"),
		RunE: func(cmd *cobra.Command, args []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				resp, err := adminv1.NewCustomDomainServiceClient(
					conn,
				).RenewCertificate(
					ctx,
					&adminv1.RenewCertificateRequest{
						Name: parent + "/customDomains/" + domainID(args[0]),
					},
				)
				if err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), resp, func() table {
					return table{below: []string{renewText(resp.GetCustomDomain(), time.Now())}}
				})
			})
		},
	}
}

// renewText says what comes of a renewal that was asked for.
func renewText(d *topologyv1.CustomDomain, now time.Time) string {
	days := daysLeft(d.GetCertificate(), now)
	if days == "" {
		return "a certificate of " + d.GetDomain() + " is asked for"
	}
	return "another certificate of " + d.GetDomain() + " is asked for; this one is good for " + days + " days"
}

// word is the name of a state as people read it.
func word(state string) string { return strings.ReplaceAll(strings.ToLower(state), "_", " ") }

// writeCheck prints the state of a domain, and what to set in DNS. A domain that is ready takes one
// line.
func writeCheck(w io.Writer, parent string, resp *adminv1.CheckCustomDomainResponse, now time.Time) error {
	var b strings.Builder
	d := resp.GetCustomDomain()
	if resp.GetReady() {
		fmt.Fprintf(&b, "%s  ready: %s\n", d.GetDomain(), readyText(d, now))
		_, err := io.WriteString(w, b.String())
		return err
	}
	account, name := shellword.Quote(strings.TrimPrefix(parent, "accounts/")), shellword.Quote(d.GetDomain())
	if d.GetName() == "" {
		fmt.Fprintf(&b, "%s  not a domain yet: edgewalk create domain %s -A %s\n", d.GetDomain(), name, account)
	} else {
		fmt.Fprintf(&b, "%s  %s\n", d.GetDomain(), d.GetState())
	}
	o, r, cert := d.GetOwnership(), d.GetRouting(), d.GetCertificate()
	owned := o.GetState() == topologyv1.DomainOwnership_VERIFIED || o.GetState() == topologyv1.DomainOwnership_TRUSTED
	routed := r.GetState() == topologyv1.DomainRouting_HERE || r.GetState() == topologyv1.DomainRouting_PROXIED
	writeFact(&b, "ownership", mark(owned, false), ownershipWord(o), o.GetMessage())
	writeFact(
		&b,
		"routing",
		mark(routed, r.GetState() == topologyv1.DomainRouting_UNKNOWN),
		word(r.GetState().String()),
		r.GetMessage(),
	)
	issued := cert.GetState() == topologyv1.DomainCertificate_ISSUED ||
		cert.GetState() == topologyv1.DomainCertificate_RENEWING
	failed := cert.GetState() == topologyv1.DomainCertificate_FAILED ||
		cert.GetState() == topologyv1.DomainCertificate_EXPIRED
	writeFact(
		&b,
		"certificate",
		mark(issued, !failed),
		word(cert.GetState().String()),
		certificateText(cert, owned, routed),
	)
	writeRecords(&b, d, r.GetNameServers())
	if at := r.GetLastCheck(); at != nil {
		who := "Asked the name servers"
		switch n := len(r.GetNameServers()); {
		case len(r.GetResolvers()) > 0:
			who = "No name server answered. Asked " + strings.Join(r.GetResolvers(), ", ")
		case n == 0:
			who = "Asked"
		case n == 1:
			who = "Asked the name server"
		case n == 2:
			who = "Asked both name servers"
		}
		fmt.Fprintf(&b, "%s %s ago.", who, roughly(now.Sub(at.AsTime())))
		if next := r.GetNextCheck(); next != nil {
			fmt.Fprintf(
				&b,
				" Next look in %s, or: edgewalk domains check %s -A %s --wait 10m",
				roughly(next.AsTime().Sub(now)), name, account,
			)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func mark(good, open bool) string {
	switch {
	case good:
		return "+"
	case open:
		return "."
	}
	return "x"
}

func writeFact(b *strings.Builder, name, mark, state, message string) {
	fmt.Fprintf(b, "  %-11s  %s %-11s  %s", name, mark, state, message)
	text := strings.TrimRight(b.String(), " ")
	b.Reset()
	b.WriteString(text + "\n")
}

func ownershipWord(o *topologyv1.DomainOwnership) string {
	if o.GetState() == topologyv1.DomainOwnership_PENDING {
		return "not proven"
	}
	return word(o.GetState().String())
}

func certificateText(cert *topologyv1.DomainCertificate, owned, routed bool) string {
	if cert.GetMessage() != "" {
		return cert.GetMessage()
	}
	switch cert.GetReason() {
	case topologyv1.DomainCertificate_NO_ISSUER:
		return "the control plane has no issuer; served over http:// alone"
	case topologyv1.DomainCertificate_TLS_OFF:
		return "tls.mode is OFF"
	case topologyv1.DomainCertificate_NOT_UPLOADED:
		return "none is uploaded: edgewalk domains upload"
	}
	var text string
	switch {
	case !owned && !routed:
		text = "for ownership and routing"
	case !owned:
		text = "for ownership"
	case !routed:
		text = "for routing"
	}
	if len(cert.GetSeen()) > 0 {
		text += "; found " + strings.Join(cert.GetSeen(), ", ")
	}
	return text
}

func readyText(d *topologyv1.CustomDomain, now time.Time) string {
	cert := d.GetCertificate()
	if cert.GetNotAfter() == nil {
		return "served over http:// alone"
	}
	var parts []string
	switch {
	case cert.GetIssuer() != "":
		parts = append(parts, cert.GetIssuer())
	case d.GetTls().GetMode() == topologyv1.DomainTls_UPLOADED:
		parts = append(parts, "uploaded")
	}
	parts = append(parts, daysLeft(cert, now)+" days left")
	if edges := cert.GetEdges(); edges.GetTotal() > 0 {
		parts = append(parts, fmt.Sprintf("served by %d of %d edges", edges.GetServing(), edges.GetTotal()))
	}
	text := strings.Join(parts, ", ")
	if cert.GetReason() == topologyv1.DomainCertificate_ENDS_SOON {
		text += "; " + cert.GetMessage()
	}
	return text
}

// writeRecords lists what to set, each way to go by itself.
func writeRecords(b *strings.Builder, d *topologyv1.CustomDomain, servers []string) {
	records := d.GetRecords()
	if len(records) == 0 {
		return
	}
	width := 0
	options := map[int32]bool{}
	for _, r := range records {
		width = max(width, len(r.GetName()))
		if r.GetOption() > 0 {
			options[r.GetOption()] = true
		}
	}
	fmt.Fprint(b, "Set at your DNS")
	if len(servers) > 0 {
		fmt.Fprintf(b, " (%s)", strings.Join(servers, ", "))
	}
	b.WriteString("\n")
	write := func(option int32) {
		for _, r := range records {
			if r.GetOption() == option {
				writeRecord(b, r, width)
			}
		}
	}
	write(0)
	switch {
	case len(options) < 2:
		for option := range options {
			write(option)
		}
	default:
		fmt.Fprint(b, "either\n")
		write(1)
		fmt.Fprint(b, "or\n")
		write(2)
	}
}

func writeRecord(b *strings.Builder, r *topologyv1.DomainRecord, width int) {
	value := r.GetValue()
	if r.GetType() == "TXT" {
		value = `"` + value + `"`
	}
	action := map[topologyv1.DomainRecord_Action]string{
		topologyv1.DomainRecord_DELETE: "delete ", topologyv1.DomainRecord_KEEP: "keep   ",
	}[r.GetAction()]
	line := fmt.Sprintf("  %-7s%-*s  %-5s  %s", action, width, r.GetName(), r.GetType(), value)
	if r.GetNote() != "" {
		line += "   " + r.GetNote()
	}
	b.WriteString(line + "\n")
}

// roughly is a span of time as people say it.
func roughly(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Round(time.Second).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Round(time.Minute).Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Round(time.Hour).Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
