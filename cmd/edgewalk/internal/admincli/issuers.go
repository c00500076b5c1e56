package admincli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

func (c *cli) issuersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "issuers",
		Short: "Show where certificates come from, and what waits",
		Long: `Show the certificate authorities that managed certificates come from, in the order in which they are tried: whether orders are sent to each, how many of the
orders that it takes in 3 hours are used, how many are under way, and how many names wait and for how long. They are those of the control plane's
--acme-issuer.`,
		Example: `  edgewalk domains issuers
  edgewalk domains issuers -o json
  edgewalk domains issuers rollover-key`,
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
	cmd.AddCommand(c.rolloverKeyCommand())
	return cmd
}

func (c *cli) rolloverKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rollover-key",
		Short: "Give the accounts at issuers a new key",
		Long: `Give the deployment's accounts at all issuers a new key, and show the progress until that is done. Do it when others may know the key: when a snapshot or
a backup of etcd was stolen together with the file of --secret-key-file, or somebody left who had both. Whoever has the key can revoke certificates, and get
certificates for every name that leads to the edges. Replace the file of --secret-key-file first, so that the new key is not sealed with a stolen one: edgewalk
secrets --help says how.

Orders under way end first, for a minute at most, and no others begin. Then each issuer changes the key, edges get it, and orders go on: served names notice
nothing. The accounts stay the same, and so does what DNS says of them (CAA accounturi, _validation-persist). An issuer that does not answer holds nobody up: its
account gets the new key before it is used again, and until then whoever has the old key can use it there. edgewalk domains issuers -o wide names such issuers.

You may stop the command: the rollover goes on, also when control planes restart, and asking again joins it. After a restore of a snapshot from before a
rollover, the old key is in use again: do it again.`,
		Example: "  edgewalk domains issuers rollover-key",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				resp, err := c.rolloverKey(ctx, adminv1.NewIssuerServiceClient(conn), cmd.ErrOrStderr())
				if err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), resp, func() table { return rolloverTable(resp.GetAccountKey()) })
			})
		},
	}
}

// rolloverPoll is the time between two looks at how far a rollover is.
const rolloverPoll = 300 * time.Millisecond

// rolloverKey asks for a rollover, and says what it waits for until it has ended.
func (c *cli) rolloverKey(
	ctx context.Context, client adminv1.IssuerServiceClient, progress io.Writer,
) (*adminv1.ListIssuersResponse, error) {
	asked, err := client.RolloverAccountKey(ctx, &adminv1.RolloverAccountKeyRequest{})
	if err != nil {
		return nil, err
	}
	if asked.GetJoined() {
		fmt.Fprintln(progress, "a rollover was under way already")
	}
	said := ""
	for {
		resp, err := client.ListIssuers(ctx, &adminv1.ListIssuersRequest{})
		if err != nil {
			return nil, err
		}
		now := waitsFor(resp)
		if now == "" {
			return resp, nil
		}
		if now != said {
			fmt.Fprintln(progress, now)
			said = now
		}
		select {
		case <-time.After(rolloverPoll):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// waitsFor says what the rollover waits for, and nothing if there is none.
func waitsFor(resp *adminv1.ListIssuersResponse) string {
	switch resp.GetAccountKey().GetRollover() {
	case adminv1.AccountKey_ROLLOVER_UNSPECIFIED:
		return ""
	case adminv1.AccountKey_ASKED:
		if resp.GetLeader() == "" {
			return "waits for a control plane that orders: none does at the moment"
		}
		return "waits for " + resp.GetLeader() + ", which orders"
	case adminv1.AccountKey_DRAINING:
		return "waits for orders that are under way"
	case adminv1.AccountKey_CHANGING:
		return "issuers change the key"
	case adminv1.AccountKey_TELLING:
		return "edges are told of the new key"
	default:
		return "waits for " + word(resp.GetAccountKey().GetRollover().String())
	}
}

func rolloverTable(key *adminv1.AccountKey) table {
	t := table{rows: [][]string{{"the accounts have another key: " + key.GetThumbprint()}}}
	t.below = behindLines(key)
	return t
}

// behindLines name the issuers whose accounts have an old key.
func behindLines(key *adminv1.AccountKey) (lines []string) {
	for _, name := range key.GetBehind() {
		lines = append(lines, name+": its account still has the old key: it gets the new one before the next order")
	}
	return lines
}

func issuersTable(resp *adminv1.ListIssuersResponse, now time.Time) table {
	if len(resp.GetIssuers()) == 0 {
		return table{below: []string{"There are no issuers: edgewalk controlplane --acme-issuer names one."}}
	}
	t := table{head: []string{
		"ISSUER", "STATE", "ORDERS", "RUNNING", "QUEUED", "+PROFILE", "+DIRECTORY", "+ACCOUNT", "+KEY SINCE",
	}}
	for _, one := range resp.GetIssuers() {
		t.rows = append(t.rows, issuerRow(one, now))
		if one.GetMessage() != "" {
			t.below = append(t.below, one.GetName()+": "+one.GetMessage())
		}
	}
	t.below = append(t.below, behindLines(resp.GetAccountKey())...)
	if now := waitsFor(resp); now != "" {
		t.below = append(t.below, "Rollover of the account key: "+now+".")
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
	since := ""
	if at := one.GetAccountKeyTime(); at != nil {
		since = at.AsTime().Format(time.RFC3339)
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
		one.GetDirectoryUrl(), one.GetAccountUrl(), since,
	}
}
