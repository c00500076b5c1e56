package admincli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func (c *cli) purgeCommand() *cobra.Command {
	var urls []string
	var prefix, tag, endpoint string
	var all, hard bool
	var wait waiting
	cmd := &cobra.Command{
		Use:   "purge (--url URL... | --prefix PATH | --tag TAG | --endpoint ID | --all)",
		Short: "Make edges stop using what they stored",
		Long: `Make edges stop using replies that they stored before now. A soft purge, the default, has them revalidated before their next use, and they may still
stand in while origins fail; after a hard one they are never used again.`,
		Example: `  edgewalk purge -A acme --url https://images.example.com/a.jpg --wait
  edgewalk purge -A acme --prefix /shop --hard
  edgewalk purge -A acme --tag sku-4711
  edgewalk purge -A acme --all`,
		Args: exactly(0, "no arguments but flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			purge, err := newPurge(urls, prefix, tag, endpoint, all)
			if err != nil {
				return err
			}
			purge.Kind = topologyv1.Purge_SOFT
			if hard {
				purge.Kind = topologyv1.Purge_HARD
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				response, err := adminv1.NewPurgeServiceClient(conn).CreatePurge(ctx,
					&adminv1.CreatePurgeRequest{Parent: parent, Purge: purge})
				if err != nil {
					return err
				}
				err = c.print(cmd.OutOrStdout(), response, func() table {
					return table{rows: [][]string{{fmt.Sprintf("%s created: %s", response.GetPurge().GetName(),
						purgeScope(response.GetPurge()))}}}
				})
				if err != nil {
					return err
				}
				if response.GetPurge().GetEdges().GetOffline() > 0 {
					tellOffline(ctx, cmd.ErrOrStderr(), adminv1.NewFleetServiceClient(conn))
				}
				return c.waitFor(cmd, conn, response.GetRevision(), wait)
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&urls, "url", nil, "a URL, with or without scheme; without ? for each query (repeatable, up to 100)")
	f.StringVar(&prefix, "prefix", "", "a folder: /path in every endpoint, or a URL")
	f.StringVar(&tag, "tag", "", "a Cache-Tag or Surrogate-Key")
	f.StringVar(&endpoint, "endpoint", "", "the id of a URL-endpoint: everything under it")
	f.BoolVar(&all, "all", false, "everything of the account")
	f.BoolVar(&hard, "hard", false, "never use the stored replies again, not even while origins fail")
	c.completeFlag(cmd, "endpoint", "url-endpoint")
	wait.addFlags(cmd)
	return cmd
}

// maxOffline is how many edges are named that are not connected.
const maxOffline = 20

// tellOffline names the edges that are not waited for, because they are not connected: what they
// serve meanwhile is as it was.
func tellOffline(ctx context.Context, w io.Writer, fleet adminv1.FleetServiceClient) {
	var names []string
	for token, more := "", true; more; more = token != "" {
		resp, err := fleet.ListEdges(ctx, &adminv1.ListEdgesRequest{PageToken: token})
		if err != nil {
			fmt.Fprintf(w, "some edges are not connected, and purge when they come back (which ones cannot be told: %s)\n", status.Convert(err).Message())
			return
		}
		for _, e := range resp.GetEdges() {
			if !e.GetConnected() {
				names = append(names, e.GetId())
			}
		}
		token = resp.GetNextPageToken()
	}
	if len(names) == 0 {
		return
	}
	rest := ""
	if more := len(names) - maxOffline; more > 0 {
		names, rest = names[:maxOffline], fmt.Sprintf(" and %d more", more)
	}
	fmt.Fprintf(w, "not connected, and purge when they come back: %s%s\n", strings.Join(names, ", "), rest)
}

// newPurge makes a purge of the one scope that is given.
func newPurge(urls []string, prefix, tag, endpoint string, all bool) (*topologyv1.Purge, error) {
	var scopes []*topologyv1.Purge
	if len(urls) > 0 {
		scopes = append(scopes,
			&topologyv1.Purge{Scope: &topologyv1.Purge_Urls_{Urls: &topologyv1.Purge_Urls{Urls: urls}}})
	}
	if prefix != "" {
		scopes = append(scopes, &topologyv1.Purge{Scope: &topologyv1.Purge_Prefix{Prefix: prefix}})
	}
	if tag != "" {
		scopes = append(scopes, &topologyv1.Purge{Scope: &topologyv1.Purge_Tag{Tag: tag}})
	}
	if endpoint != "" {
		scopes = append(scopes, &topologyv1.Purge{Scope: &topologyv1.Purge_UrlEndpoint{UrlEndpoint: endpoint}})
	}
	if all {
		scopes = append(scopes, &topologyv1.Purge{Scope: &topologyv1.Purge_Everything{Everything: true}})
	}
	if len(scopes) != 1 {
		return nil, usagef("say what to purge, exactly one of --url, --prefix, --tag, --endpoint and --all")
	}
	return scopes[0], nil
}
