package admincli

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/internal/duration"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// waitTimeout is how long a wait lasts unless --timeout says otherwise. An edge that has just left
// is waited for 30 s before it counts as lost: a wait has to outlast that, or it would succeed or
// fail by luck.
const waitTimeout = time.Minute

// waiting holds the flags of commands that can wait for edges.
type waiting struct {
	enabled  bool
	region   string
	minEdges int32
	timeout  duration.Flag
}

func (w *waiting) addFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.enabled, "wait", false, "return only when every edge serves accordingly")
	w.addDetailFlags(cmd)
}

func (w *waiting) addDetailFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.region, "region", "", "wait only for edges of this region")
	cmd.Flags().Int32Var(&w.minEdges, "min-edges", 1, "how many edges there must be at least")
	w.timeout = duration.Flag(waitTimeout)
	cmd.Flags().Var(&w.timeout, "timeout", "how long to wait for edges")
}

// waitFor waits until every edge has applied revision, if w asks for it. A command that had nothing
// to write has none, and waits for what others, or an earlier run of it, have written.
func (c *cli) waitFor(cmd *cobra.Command, conn *grpc.ClientConn, revision int64, w waiting) error {
	if !w.enabled {
		return nil
	}
	if revision == 0 {
		now, err := adminv1.NewFleetServiceClient(conn).GetRevision(cmd.Context(), &adminv1.GetRevisionRequest{})
		if err != nil {
			return err
		}
		revision = now.GetRevision()
	}
	fmt.Fprintf(c.notes(cmd), "stored at %d; waiting for the edges\n", revision)
	_, err := c.waitApplied(cmd, conn, revision, w)
	return err
}

func (c *cli) waitApplied(
	cmd *cobra.Command, conn *grpc.ClientConn, revision int64, w waiting,
) (*adminv1.WaitAppliedResponse, error) {
	start := time.Now()
	response, err := adminv1.NewFleetServiceClient(conn).WaitApplied(cmd.Context(), &adminv1.WaitAppliedRequest{
		Revision: revision, Region: w.region, MinEdges: &w.minEdges, Timeout: durationpb.New(time.Duration(w.timeout)),
	})
	if err != nil {
		if cmd.Context().Err() != nil && status.Code(err) == codes.Canceled {
			err = &apiError{fmt.Sprintf("interrupted: revision %d is stored, and may not be at every edge yet\n"+
				"  edgewalk wait %d goes on waiting.", revision, revision), err}
		}
		return nil, err
	}
	fmt.Fprintf(c.notes(cmd), "applied by %d of %d edges in %s\n", response.GetApplied(), response.GetTotal(),
		time.Since(start).Round(time.Millisecond))
	if len(response.GetRejected()) == 0 {
		return response, nil
	}
	var lines []string
	for _, r := range response.GetRejected() {
		lines = append(lines,
			fmt.Sprintf("  %s: %s: %s", r.GetEdge(), r.GetRejected().GetKey(), r.GetRejected().GetReason()))
	}
	return response, fmt.Errorf("refused by some edges, which go on with what they had:\n%s", strings.Join(lines, "\n"))
}

func (c *cli) waitCommand() *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use:   "wait REVISION",
		Short: "Wait until every edge has applied a revision",
		Example: `  edgewalk wait 42
  edgewalk wait 42 --region eu --min-edges 2 --timeout 1m`,
		Args: exactly(1, "a revision"),
		RunE: func(cmd *cobra.Command, args []string) error {
			revision, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || revision <= 0 {
				return usagef("%q is no revision: it is a number above 0, as writes print it", args[0])
			}
			return c.with(cmd.Context(), func(_ context.Context, conn *grpc.ClientConn) error {
				response, err := c.waitApplied(cmd, conn, revision, w)
				if response == nil || c.forPeople() {
					return err
				}
				return cmp.Or(err, c.print(cmd.OutOrStdout(), response, nil))
			})
		},
	}
	w.addDetailFlags(cmd)
	return cmd
}

func (c *cli) edgesCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "edges",
		Short: "Show the edges, what they have applied and what they keep",
		Example: `  edgewalk edges
  edgewalk edges -w
  edgewalk edges -o json`,
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := kindOf("edges", "List")
			if err != nil {
				return err
			}
			if err := c.show(cmd, k, "", watch); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				return c.showFreezes(ctx, cmd, conn)
			})
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show them again whenever something has changed")
	cmd.AddCommand(c.joinTokenCommand(), c.identitiesCommand(), c.revokeEdgeCommand(), c.rotateAuthorityCommand())
	return cmd
}
