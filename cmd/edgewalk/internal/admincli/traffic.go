package admincli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func (c *cli) trafficCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "traffic",
		Short: "Show what clients asked of an account in the last hour",
		Long: `Show what clients asked of an account in the last hour, as edges report it every 10 s, and the files that nobody had. Control planes keep
it in memory, so it begins anew with them; Prometheus keeps more.`,
		Example: `  edgewalk traffic -A acme
  edgewalk traffic -A acme -o json`,
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			account, err := c.needAccount()
			if err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				resp, err := adminv1.NewAccountServiceClient(conn).GetTraffic(ctx,
					&adminv1.GetTrafficRequest{Name: account + "/traffic"})
				if err != nil {
					return err
				}
				if c.forPeople() {
					return writeTraffic(cmd.OutOrStdout(), resp.GetTraffic(), c.output == "wide")
				}
				return c.print(cmd.OutOrStdout(), resp, nil)
			})
		},
	}
}

func writeTraffic(w io.Writer, t *topologyv1.Traffic, wide bool) error {
	var all topologyv1.TrafficCounts
	for _, m := range t.GetMinutes() {
		c := m.GetCounts()
		all.Requests += c.GetRequests()
		all.Hits += c.GetHits()
		all.Misses += c.GetMisses()
		all.Errors += c.GetErrors()
		all.Bytes += c.GetBytes()
	}
	ratio := "nothing was asked for"
	if n := all.GetHits() + all.GetMisses(); n > 0 {
		ratio = fmt.Sprintf("%.1f %%", float64(all.GetHits())*100/float64(n))
	}
	figures := table{rows: [][]string{
		{"requests", fmt.Sprint(all.GetRequests())},
		{"hit ratio", ratio},
		{"errors", fmt.Sprint(all.GetErrors())},
		{"bytes sent", ByteSize(all.GetBytes())},
		{"since", age(t.GetStartTime()) + " ago"},
	}}
	if len(t.GetUnreached()) > 0 {
		figures.rows = append(figures.rows, []string{"without edges of", strings.Join(t.GetUnreached(), ", ")})
	}
	if err := figures.write(w, true); err != nil || len(t.GetMissingFiles()) == 0 {
		return err
	}
	fmt.Fprintf(w, "\nFiles that nobody had, counted for %s:\n", age(t.GetMissingStartTime()))
	missing := table{head: []string{"~FILE", "URL-ENDPOINT", "TIMES"}}
	for _, f := range t.GetMissingFiles() {
		missing.rows = append(missing.rows, []string{f.GetPath(), f.GetUrlEndpoint(), fmt.Sprint(f.GetRequests())})
	}
	return missing.write(w, wide)
}
