package admincli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

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
			if strings.HasPrefix(args[0], "/") {
				return usagef("%q is not a URL: write https://host/path, or host/path", args[0])
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				note := ""
				if edge == "" && region == "" {
					var err error
					if edge, note, err = edgeFor(ctx, conn, args[0]); err != nil {
						return err
					}
				}
				response, err := adminv1.NewDiagnosticServiceClient(conn).Explain(ctx,
					&adminv1.ExplainRequest{Url: args[0], Edge: edge, Region: region})
				if err != nil {
					return err
				}
				if !c.forPeople() {
					return c.print(cmd.OutOrStdout(), response, nil)
				}
				return writeExplanation(cmd.OutOrStdout(), response.GetExplanation(), note, c.output == "wide")
			})
		},
	}
	cmd.Flags().StringVar(&edge, "edge", "", "the edge to ask (default: any)")
	cmd.Flags().StringVar(&region, "region", "", "ask an edge of this region")
	c.completeFlag(cmd, "edge", "edge")
	return cmd
}

func writeExplanation(w io.Writer, e *topologyv1.Explanation, note string, wide bool) error {
	where := table{rows: [][]string{
		{"edge", fmt.Sprintf("%s, at revision %d%s", cmp.Or(e.GetEdge(), "one of them"), e.GetRevision(), note)},
		{"host", e.GetHost() + domainNote(e)},
		{"account", e.GetAccount()},
		{"url-endpoint", e.GetUrlEndpoint()},
		{"path", e.GetPath()},
		{"query", e.GetQuery()},
	}}
	if err := where.write(w, true); err != nil {
		return err
	}
	if len(e.GetCached()) > 0 {
		cached := table{head: []string{"CACHED", "FROM", "STORED", "AGE", "FRESH FOR", "SIZE", "A REQUEST"}}
		for _, r := range e.GetCached() {
			cached.rows = append(
				cached.rows,
				[]string{
					strconv.Itoa(int(r.GetStatus())), r.GetSupplier(), age(r.GetStored()) + " ago",
					span(r.GetAge().AsDuration()), freshFor(r), ByteSize(r.GetSizeBytes()), r.GetUse(),
				},
			)
		}
		fmt.Fprintln(w)
		if err := cached.write(w, wide); err != nil {
			return err
		}
	}
	if len(e.GetCached()) == 0 && e.GetUrlEndpoint() != "" {
		fmt.Fprintln(w, "\nno copy here")
	}
	if len(e.GetSteps()) > 0 {
		fmt.Fprintln(w)
		if err := writeSteps(w, e.GetSteps(), wide); err != nil {
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

// edgeFor finds the connected edge that a URL leads to: the only one, or the only one that has an
// address of the URL's host. Else any is asked, of which note says so.
func edgeFor(ctx context.Context, conn *grpc.ClientConn, raw string) (edge, note string, err error) {
	k, err := kindOf("edge", "List")
	if err != nil {
		return "", "", err
	}
	all, err := k.listAll(ctx, conn, fieldsOf{})
	if status.Code(err) == codes.PermissionDenied {
		return "", "", nil // Tokens for one account have no part in which edges there are.
	}
	if err != nil {
		return "", "", err
	}
	addresses := make(map[string][]string) // ids by IP address, and by IP address and port
	connected := 0
	list := get(all, k.fields).List()
	for i := range list.Len() {
		e := list.Get(i).Message().Interface().(*topologyv1.Edge)
		if !e.GetConnected() {
			continue
		}
		connected++
		if host, _, err := net.SplitHostPort(e.GetAddress()); err == nil {
			addresses[host] = append(addresses[host], e.GetId())
			addresses[e.GetAddress()] = append(addresses[e.GetAddress()], e.GetId())
		}
	}
	if connected < 2 {
		return "", "", nil
	}
	if !strings.Contains(raw, "://") {
		raw = "http://" + raw
	}
	if u, err := url.Parse(raw); err == nil {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		found, _ := net.DefaultResolver.LookupHost(ctx, u.Hostname()) // Without an address, no edge has it.
		for _, address := range found {
			for _, at := range []string{net.JoinHostPort(address, u.Port()), address} {
				if ids := addresses[at]; len(ids) == 1 {
					return ids[0], ", which has the address of the URL's host", nil
				}
			}
		}
	}
	return "", fmt.Sprintf(", one of %d: others may hold other copies, --edge asks them", connected), nil
}

// lookupTimeout bounds how long explain waits for the addresses of a URL's host.
const lookupTimeout = 2 * time.Second

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
	t := table{head: []string{"STEP", "STORAGE", "+REQUEST", "STATUS", "OUTCOME", "TIME", "WHY"}, whole: true}
	for i, step := range steps {
		outcome := strings.ReplaceAll(step.GetOutcome().String(), "_", " ")
		if step.GetReason() != "" {
			outcome += " (" + step.GetReason() + ")"
		}
		status := ""
		if step.GetStatus() != 0 {
			status = strconv.Itoa(int(step.GetStatus()))
		}
		t.rows = append(
			t.rows,
			[]string{
				strconv.Itoa(i + 1), step.GetOrigin(), step.GetRequest(), status, outcome,
				step.GetDuration().AsDuration().Round(10 * time.Microsecond).String(), step.GetDetail(),
			},
		)
	}
	return t
}

// writeSteps prints a walk. What was asked for is a URL, which would make the table too wide: it
// stands below, whole.
func writeSteps(w io.Writer, steps []*topologyv1.WalkStep, wide bool) error {
	if err := stepsTable(steps).write(w, wide); err != nil || wide {
		return err
	}
	for i, step := range steps {
		if step.GetRequest() != "" {
			fmt.Fprintf(w, "%d: %s\n", i+1, strings.Map(printable, step.GetRequest()))
		}
	}
	return nil
}

// tryOrigin lets an edge ask an origin that has yet to be written, and returns an error unless a
// walk could use the answer.
func (c *cli) tryOrigin(
	ctx context.Context, cmd *cobra.Command, conn *grpc.ClientConn, name string, resource protoreflect.Message,
) error {
	response, err := adminv1.NewOriginServiceClient(conn).TestOrigin(ctx,
		&adminv1.TestOriginRequest{Name: name, Origin: resource.Interface().(*topologyv1.Origin)})
	if err != nil {
		return err
	}
	step := response.GetTest().GetStep()
	if !response.GetTest().GetOk() {
		return fmt.Errorf("nothing is written, because a walk cannot use this answer: %s", cmp.Or(step.GetAdvice(), step.GetDetail()))
	}
	fmt.Fprintf(c.notes(cmd), "tested: %s: %s\n", step.GetRequest(), testedWord(step))
	return nil
}

// testedWord says what an answer to a test means.
func testedWord(step *topologyv1.WalkStep) string {
	if step.GetOutcome() == topologyv1.WalkStep_NOT_HERE {
		return step.GetDetail() + ", which is how it says that it has no such file"
	}
	return step.GetDetail()
}

func (c *cli) testCommand() *cobra.Command {
	var path, edge, region string
	cmd := &cobra.Command{
		Use:   "test-origin ID",
		Short: "Let an edge ask an origin for a path",
		Example: `  edgewalk test-origin legacy -A acme
  edgewalk test-origin product-images -A acme --path /a.jpg --edge fra-1`,
		Args:              exactly(1, "the origin's id"),
		ValidArgsFunction: c.completeIDs("origin"),
		RunE: func(cmd *cobra.Command, args []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				response, err := adminv1.NewOriginServiceClient(conn).TestOrigin(
					ctx,
					&adminv1.TestOriginRequest{
						Name: parent + "/origins/" + args[0], Path: path, Edge: edge, Region: region,
					},
				)
				if err != nil {
					return err
				}
				test := response.GetTest()
				if c.forPeople() {
					if err := writeSteps(
						cmd.OutOrStdout(), []*topologyv1.WalkStep{test.GetStep()}, c.output == "wide",
					); err != nil {
						return err
					}
					if test.GetOk() && test.GetStep().GetOutcome() == topologyv1.WalkStep_NOT_HERE {
						word := "fine: " + testedWord(test.GetStep()) + "; --path asks for a file that it should have"
						if path != "" {
							word = "the origin answers, and lacks that file: " + test.GetStep().GetDetail()
						}
						fmt.Fprintln(cmd.OutOrStdout(), word)
					}
				} else if err := c.print(cmd.OutOrStdout(), response, nil); err != nil {
					return err
				}
				if !test.GetOk() {
					return fmt.Errorf("a walk cannot use this answer: %s",
						cmp.Or(test.GetStep().GetAdvice(), test.GetStep().GetDetail()))
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "path", "", "the path to ask for (default: the origin's probe key, else a name that should not exist)")
	f.StringVar(&edge, "edge", "", "the edge that asks (default: any)")
	f.StringVar(&region, "region", "", "an edge of this region asks")
	c.completeFlag(cmd, "edge", "edge")
	return cmd
}
