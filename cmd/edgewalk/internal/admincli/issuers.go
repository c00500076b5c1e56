package admincli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

func (c *cli) issuersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "issuers",
		Short: "Show where certificates come from, and what waits",
		Long: `Show the certificate authorities that managed certificates come from, in the order in which they are tried: whether orders are sent to each, how many of the
orders that it takes in 3 hours are used, how many are under way, and how many names wait and for how long. They are those of the control plane's
--acme-issuer.`,
		Example: `  edgewalk domains issuers
  edgewalk domains issuers -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				resp, err := adminv1.NewIssuerServiceClient(conn).ListIssuers(ctx, &adminv1.ListIssuersRequest{})
				if err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), resp, func() table { return issuersTable(resp, time.Now()) })
			})
		},
	}
}

func issuersTable(resp *adminv1.ListIssuersResponse, now time.Time) table {
	if len(resp.GetIssuers()) == 0 {
		return table{below: []string{"There are no issuers: edgewalk controlplane --acme-issuer names one."}}
	}
	t := table{head: []string{"ISSUER", "STATE", "ORDERS", "RUNNING", "QUEUED", "+PROFILE", "+DIRECTORY", "+ACCOUNT"}}
	for _, one := range resp.GetIssuers() {
		t.rows = append(t.rows, issuerRow(one, now))
		if one.GetMessage() != "" {
			t.below = append(t.below, one.GetName()+": "+one.GetMessage())
		}
	}
	if resp.GetLeader() == "" {
		t.below = append(t.below, "No control plane orders at the moment.")
	} else {
		t.below = append(t.below, resp.GetLeader()+" orders.")
	}
	return t
}

func issuerRow(one *adminv1.Issuer, now time.Time) []string {
	state := word(one.GetState().String())
	if at := one.GetRetryTime(); at != nil {
		state += ", again in " + roughly(at.AsTime().Sub(now))
	}
	queued := fmt.Sprint(one.GetQueued())
	if one.GetQueued() > 0 && one.GetEta() != nil {
		queued += ", the last in " + roughly(one.GetEta().AsDuration())
	}
	var buckets []string
	for _, b := range one.GetBuckets() {
		text := fmt.Sprintf("%d of %d in %s", b.GetUsed(), b.GetLimit(), roughly(b.GetSpan().AsDuration()))
		if b.GetName() != "orders" {
			text = b.GetName() + " " + text
		}
		buckets = append(buckets, text)
	}
	return []string{
		one.GetName(), state, strings.Join(buckets, "; "), fmt.Sprint(one.GetRunning()), queued, one.GetProfile(),
		one.GetDirectoryUrl(), one.GetAccountUrl(),
	}
}
