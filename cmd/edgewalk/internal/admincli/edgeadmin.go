package admincli

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/internal/duration"
	"github.com/edgewalk/edgewalk/internal/listen"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

func (c *cli) joinTokenCommand() *cobra.Command {
	req := new(adminv1.CreateJoinTokenRequest)
	ttl := duration.Flag(time.Hour)
	cmd := &cobra.Command{
		Use:   "join-token --edge ID",
		Short: "Make a token with which one edge joins, once",
		Long: `Make a token with which one edge joins, and print it alone. The edge then has a certificate for a key that never leaves it, and renews it by itself; nobody else can use its id.
An edge of a pool is sent the accounts that name the pool, an edge of none all accounts.`,
		Example: `  edgewalk edges join-token --edge fra-1 --region eu > edge.token
  edgewalk edgeagent --control-plane cp.example.com:7071 --join-token-file edge.token`,
		Args: exactly(0, "no arguments; name the edge with --edge"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.GetEdge() == "" {
				return usagef("--edge is missing: the id of the edge, such as fra-1")
			}
			req.Ttl = durationpb.New(time.Duration(ttl))
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				resp, err := adminv1.NewEdgeAdminServiceClient(conn).CreateJoinToken(ctx, req)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), `The token is valid until %s, once. On the machine of edge %s:
  (umask 077; cat > edge.token)   # paste the token, Enter, Ctrl-D
  edgewalk edgeagent --control-plane %s --join-token-file edge.token
`, resp.GetExpireTime().AsTime().Format(time.RFC3339), req.GetEdge(), c.edgeAddress(resp.GetEdgeAddress()))
				if listen.Loopback(resp.GetEdgeAddress()) {
					fmt.Fprintln(cmd.ErrOrStderr(), "That address is reached from the control plane's machine alone: its --edge-addr says where edges connect.")
				}
				return c.print(cmd.OutOrStdout(), resp,
					func() table { return table{rows: [][]string{{resp.GetToken()}}} })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Edge, "edge", "", "the edge's id: lower-case letters, digits, . _ and -")
	f.StringVar(&req.Region, "region", "", "where the edge is (default local)")
	f.StringVar(&req.Pool, "pool", "", "the edge's pool (default none: it is sent every account)")
	f.Var(&ttl, "ttl", "how long the token is valid, 1m to 7d")
	return cmd
}

// edgeAddress is where an edge connects: the listener for edges, on the host that this command
// talks to if it is on each address of its machine.
func (c *cli) edgeAddress(at string) string {
	host, port, err := net.SplitHostPort(at)
	if err != nil || host != "" {
		return at
	}
	host = strings.TrimPrefix(strings.TrimPrefix(c.server, "https://"), "http://")
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return net.JoinHostPort(strings.Trim(host, "[]/"), port)
}

func (c *cli) revokeEdgeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Take an edge's certificate and join tokens back",
		Long: `Take an edge's certificate and its join tokens back. Its streams end within 2 s, and media are refused to it. It goes on serving what it has: if it was stolen, replace the secrets of
the origins that are printed, which it was sent.`,
		Example: "  edgewalk edges revoke fra-1",
		Args:    exactly(1, "the id of an edge"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				resp, err := adminv1.NewEdgeAdminServiceClient(conn).RevokeEdge(ctx,
					&adminv1.RevokeEdgeRequest{Edge: args[0]})
				if err != nil {
					return err
				}
				origins := "origins"
				if resp.GetTotal() == 1 {
					origins = "origin"
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "edge %s is revoked; it was sent the secrets of %d %s\n", args[0],
					resp.GetTotal(), origins)
				return c.print(cmd.OutOrStdout(), resp, func() table {
					var t table
					for _, name := range resp.GetOrigins() {
						t.rows = append(t.rows, []string{name})
					}
					return t
				})
			})
		},
	}
}

func (c *cli) identitiesCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "identities",
		Short:   "Show the edges that have joined, and their certificates",
		Example: "  edgewalk edges identities",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				all := new(adminv1.ListIdentitiesResponse)
				req := &adminv1.ListIdentitiesRequest{PageSize: 1000}
				for {
					resp, err := adminv1.NewEdgeAdminServiceClient(conn).ListIdentities(ctx, req)
					if err != nil {
						return err
					}
					all.Identities = append(all.Identities, resp.GetIdentities()...)
					if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
						break
					}
				}
				return c.print(cmd.OutOrStdout(), all, func() table {
					t := table{head: []string{"ID", "REGION", "POOL", "JOINED", "CERTIFICATE UNTIL", "KEY"}}
					for _, i := range all.GetIdentities() {
						until := i.GetExpireTime().AsTime().Format(time.RFC3339)
						if i.GetRevokeTime() != nil {
							until = "revoked " + age(i.GetRevokeTime()) + " ago"
						}
						t.rows = append(
							t.rows,
							[]string{
								i.GetEdge(), i.GetRegion(), i.GetPool(), age(i.GetJoinTime()) + " ago", until,
								i.GetKeySha256()[:min(16, len(i.GetKeySha256()))],
							},
						)
					}
					return t
				})
			})
		},
	}
}

func (c *cli) rotateAuthorityCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate-authority",
		Short: "Make a new authority for the certificates of edges",
		Long: `Make a new authority for the certificates of edges. Nothing has to be done at edges: they take it over with their next certificate, and the authority before stays valid for 8 days, which
is longer than any certificate.`,
		Example: "  edgewalk edges rotate-authority",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				resp, err := adminv1.NewEdgeAdminServiceClient(conn).RotateEdgeAuthority(ctx,
					new(adminv1.RotateEdgeAuthorityRequest))
				if err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), resp, func() table {
					return table{rows: [][]string{{fmt.Sprintf(
						"authority %d signs now; the one before is valid until %s", resp.GetAuthority(),
						resp.GetPreviousExpireTime().AsTime().Format(time.RFC3339),
					)}}}
				})
			})
		},
	}
}
