package admincli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// freezing holds the flags of commands that freeze edges.
type freezing struct{ region, reason string }

func (f *freezing) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.region, "region", "", "only edges of this region (default all)")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for those who look at the edges")
}

func (c *cli) freezeCommand() *cobra.Command {
	var f freezing
	cmd := &cobra.Command{
		Use:   "freeze",
		Short: "Hold edges where the topology is now, while writes go on",
		Long: `Hold edges at the revision that the topology has now. Admins go on writing; edges hear of it when edgewalk unfreeze lets them go on.
What waits for edges says at once that they are frozen.`,
		Example: `  edgewalk freeze --reason "sale until Monday"
  edgewalk freeze --region eu
  edgewalk edges
  edgewalk unfreeze`,
		Args: exactly(0, "no arguments; edgewalk pin REVISION holds edges at another revision"),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.freeze(cmd, 0, f) },
	}
	f.addFlags(cmd)
	return cmd
}

func (c *cli) pinCommand() *cobra.Command {
	var f freezing
	cmd := &cobra.Command{
		Use:   "pin REVISION",
		Short: "Hold edges at a revision, while writes go on",
		Long: `Hold edges at a revision: those that are before it go on up to it, those that are past it stay where they are, and new ones are given
the topology as it was then.`,
		Example: `  edgewalk pin 42
  edgewalk pin 42 --region eu`,
		Args: exactly(1, "a revision"),
		RunE: func(cmd *cobra.Command, args []string) error {
			revision, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || revision <= 0 {
				return usagef("%q is no revision: it is a number above 0, as writes print it", args[0])
			}
			return c.freeze(cmd, revision, f)
		},
	}
	f.addFlags(cmd)
	return cmd
}

func (c *cli) freeze(cmd *cobra.Command, revision int64, f freezing) error {
	return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
		resp, err := adminv1.NewFleetServiceClient(conn).FreezeEdges(ctx,
			&adminv1.FreezeEdgesRequest{Region: f.region, Revision: revision, Reason: f.reason})
		if err != nil {
			return err
		}
		return c.print(cmd.OutOrStdout(), resp, func() table {
			return table{rows: [][]string{{frozenLine(resp.GetFreeze())}}}
		})
	})
}

func (c *cli) unfreezeCommand() *cobra.Command {
	var region string
	cmd := &cobra.Command{
		Use:   "unfreeze",
		Short: "Let frozen edges go on to what is stored",
		Example: `  edgewalk unfreeze
  edgewalk unfreeze --region eu`,
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				resp, err := adminv1.NewFleetServiceClient(conn).UnfreezeEdges(ctx,
					&adminv1.UnfreezeEdgesRequest{Region: region})
				if err != nil {
					return err
				}
				if err := c.print(cmd.OutOrStdout(), resp, func() table {
					return table{rows: [][]string{{whichEdges(region) + " go on"}}}
				}); err != nil {
					return err
				}
				return c.showFreezes(ctx, cmd, conn) // which stay
			})
		},
	}
	cmd.Flags().StringVar(&region, "region", "", "the region that was frozen (default the freeze of all edges)")
	return cmd
}

// showFreezes says which edges are frozen, beside a table of edges.
func (c *cli) showFreezes(ctx context.Context, cmd *cobra.Command, conn *grpc.ClientConn) error {
	resp, err := adminv1.NewFleetServiceClient(conn).ListFreezes(ctx, &adminv1.ListFreezesRequest{})
	if err != nil {
		return err
	}
	for _, f := range resp.GetFreezes() {
		fmt.Fprintf(c.notes(cmd), "%s, since %s ago\n", frozenLine(f), age(f.GetFreezeTime()))
	}
	return nil
}

func frozenLine(f *adminv1.Freeze) string {
	line := fmt.Sprintf("%s are frozen at revision %d", whichEdges(f.GetRegion()), f.GetRevision())
	if f.GetReason() != "" {
		line += ": " + f.GetReason()
	}
	return line
}

func whichEdges(region string) string {
	if region == "" {
		return "all edges"
	}
	return fmt.Sprintf("edges of region %q", region)
}
