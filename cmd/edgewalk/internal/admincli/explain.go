package admincli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func (c *cli) explainCommand() *cobra.Command {
	var edge, region string
	cmd := &cobra.Command{
		Use:   "explain URL",
		Short: "Tell what an edge does with a URL, and why",
		Long:  "Tell which account and endpoint a URL leads to, what the edge's cache holds for it, and what each storage answers right now. Nothing is stored.",
		Example: `  edgewalk explain https://images.example.com/a.jpg
  edgewalk explain http://localhost:8080/demo/a.png --edge fra-1`,
		Args: exactly(1, "a URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				response, err := adminv1.NewDiagnosticServiceClient(conn).Explain(ctx, &adminv1.ExplainRequest{Url: args[0], Edge: edge, Region: region})
				if err != nil {
					return err
				}
				if c.output != "table" {
					return c.print(cmd.OutOrStdout(), response, nil)
				}
				return writeExplanation(cmd.OutOrStdout(), response.GetExplanation())
			})
		},
	}
	cmd.Flags().StringVar(&edge, "edge", "", "the edge to ask (default: any)")
	cmd.Flags().StringVar(&region, "region", "", "ask an edge of this region")
	return cmd
}

func writeExplanation(w io.Writer, e *topologyv1.Explanation) error {
	where := table{rows: [][]string{
		{"edge", fmt.Sprintf("%s, at revision %d", e.GetEdge(), e.GetRevision())},
		{"host", e.GetHost() + domainNote(e)},
		{"account", e.GetAccount()},
		{"url-endpoint", e.GetUrlEndpoint()},
		{"path", e.GetPath()},
		{"query", e.GetQuery()},
	}}
	if err := where.write(w); err != nil {
		return err
	}
	if len(e.GetCached()) > 0 {
		cached := table{head: []string{"CACHED", "FROM", "STORED", "AGE", "FRESH FOR", "SIZE", "A REQUEST"}}
		for _, r := range e.GetCached() {
			cached.rows = append(cached.rows, []string{strconv.Itoa(int(r.GetStatus())), r.GetSupplier(), age(r.GetStored()) + " ago", span(r.GetAge().AsDuration()), freshFor(r), byteSize(r.GetSizeBytes()), r.GetUse()})
		}
		fmt.Fprintln(w)
		if err := cached.write(w); err != nil {
			return err
		}
	}
	if len(e.GetSteps()) > 0 {
		fmt.Fprintln(w)
		if err := stepsTable(e.GetSteps()).write(w); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "\n%d: %s\n", e.GetStatus(), e.GetEnding())
	for _, step := range e.GetSteps() {
		if step.GetAdvice() != "" {
			fmt.Fprintf(w, "%s: %s\n", step.GetOrigin(), step.GetAdvice())
		}
	}
	return nil
}

func domainNote(e *topologyv1.Explanation) string {
	if e.GetDomain() == "" {
		return ""
	}
	return " (custom domain " + e.GetDomain() + ")"
}

func freshFor(r *topologyv1.Explanation_Cached) string {
	if ttl := r.GetTtl().AsDuration(); ttl < 0 {
		return "stale since " + span(-ttl)
	}
	return span(r.GetTtl().AsDuration())
}

func stepsTable(steps []*topologyv1.WalkStep) table {
	t := table{head: []string{"STEP", "STORAGE", "REQUEST", "STATUS", "OUTCOME", "TIME", "WHY"}}
	for i, step := range steps {
		outcome := strings.ReplaceAll(step.GetOutcome().String(), "_", " ")
		if step.GetReason() != "" {
			outcome += " (" + step.GetReason() + ")"
		}
		status := ""
		if step.GetStatus() != 0 {
			status = strconv.Itoa(int(step.GetStatus()))
		}
		t.rows = append(t.rows, []string{strconv.Itoa(i + 1), step.GetOrigin(), step.GetRequest(), status, outcome, step.GetDuration().AsDuration().Round(10 * time.Microsecond).String(), step.GetDetail()})
	}
	return t
}

func (c *cli) testCommand() *cobra.Command {
	var path, edge, region string
	cmd := &cobra.Command{
		Use:   "test-origin ID",
		Short: "Let an edge ask an origin for a path",
		Example: `  edgewalk test-origin legacy -A acme
  edgewalk test-origin product-images -A acme --path /a.jpg --edge fra-1`,
		Args: exactly(1, "the origin's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				response, err := adminv1.NewOriginServiceClient(conn).TestOrigin(ctx, &adminv1.TestOriginRequest{Name: parent + "/origins/" + args[0], Path: path, Edge: edge, Region: region})
				if err != nil {
					return err
				}
				test := response.GetTest()
				if err := c.print(cmd.OutOrStdout(), response, func() table { return stepsTable([]*topologyv1.WalkStep{test.GetStep()}) }); err != nil {
					return err
				}
				if !test.GetOk() {
					return fmt.Errorf("a walk cannot use this answer: %s", cmp.Or(test.GetStep().GetAdvice(), test.GetStep().GetDetail()))
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "path", "", "the path to ask for (default: the origin's probe key, else a name that should not exist)")
	f.StringVar(&edge, "edge", "", "the edge that asks (default: any)")
	f.StringVar(&region, "region", "", "an edge of this region asks")
	return cmd
}
