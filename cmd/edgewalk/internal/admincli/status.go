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

func (c *cli) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how everything stands, and what needs a person",
		Long: `Show how everything stands on one page: the control planes, etcd, the edges, and what needs a person. It answers while etcd does
not. The exit code is 1 if something needs a person, so a probe can run it.`,
		Example: `  edgewalk status
  edgewalk status -o json`,
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				s, err := adminv1.NewFleetServiceClient(conn).GetStatus(ctx, new(adminv1.GetStatusRequest))
				if err != nil {
					return err
				}
				if c.forPeople() {
					if err := writeStatus(cmd.OutOrStdout(), s); err != nil {
						return err
					}
				} else if err := c.print(cmd.OutOrStdout(), s, nil); err != nil {
					return err
				}
				if n := len(s.GetProblems()) + int(s.GetMoreProblems()); n > 0 {
					return fmt.Errorf("problems found: %d", n)
				}
				return nil
			})
		},
	}
}

func writeStatus(w io.Writer, s *adminv1.GetStatusResponse) error {
	step := "not in step with etcd yet"
	if s.GetAsOf() != nil {
		step = fmt.Sprintf("in step with etcd %s ago", span(time.Since(s.GetAsOf().AsTime())))
	}
	planes := make([]string, 0, len(s.GetControlPlanes()))
	for _, p := range s.GetControlPlanes() {
		name := p.GetServer()
		if !p.GetConnected() {
			name += " (not reached)"
		}
		planes = append(planes, name)
	}
	e := s.GetEdges()
	edges := fmt.Sprintf("%d connected", e.GetConnected())
	for _, more := range []struct {
		n    int32
		what string
	}{
		{e.GetBehind(), "behind"}, {e.GetFrozen(), "frozen"}, {e.GetRefusing(), "refusing something"},
		{e.GetGone(), "gone"},
	} {
		if more.n > 0 {
			edges += fmt.Sprintf(", %d %s", more.n, more.what)
		}
	}
	t := table{rows: [][]string{
		{"topology", fmt.Sprintf("revision %d, %s", s.GetRevision(), step)},
		{"control planes", strings.Join(planes, ", ")},
	}}
	for i, m := range s.GetEtcdMembers() {
		name := " "
		if i == 0 {
			name = "etcd"
		}
		t.rows = append(t.rows, []string{name, etcdMember(m, s.GetEtcdQuotaBytes())})
	}
	t.rows = append(t.rows, []string{"edges", edges})
	if err := t.write(w, true); err != nil {
		return err
	}
	if len(s.GetProblems()) == 0 {
		fmt.Fprintln(w, "\nNothing needs a person.")
		return nil
	}
	fmt.Fprintln(w, "\nThis needs a person:")
	for _, problem := range s.GetProblems() {
		fmt.Fprintln(w, "- "+strings.Map(printable, problem))
	}
	if n := s.GetMoreProblems(); n > 0 {
		fmt.Fprintf(w, "and %d more\n", n)
	}
	return nil
}

func etcdMember(m *adminv1.GetStatusResponse_EtcdMember, quota int64) string {
	if m.GetVersion() == "" {
		return m.GetEndpoint() + " does not answer"
	}
	text := fmt.Sprintf("%s, version %s, %s", m.GetEndpoint(), m.GetVersion(), ByteSize(m.GetSizeBytes()))
	if quota > 0 {
		text += " of " + ByteSize(quota)
	}
	if m.GetLeader() {
		text += ", leads"
	}
	return text
}
