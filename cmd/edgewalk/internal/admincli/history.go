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
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// defaultLines is how many steps or events are shown unless --limit says otherwise.
const defaultLines = 50

func (c *cli) historyCommand() *cobra.Command {
	limit := int32(defaultLines)
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show the changes of an account: when, who, what",
		Long: `Show the steps that changed an account, its origins, endpoints and domains, the newest first. They are kept for 90 days, and of an account the last 1,000.
What has changed in a step is shown by edgewalk diff, and an earlier state comes back by edgewalk rollback.`,
		Example: `  edgewalk history -A acme
  edgewalk diff -A acme 41 42
  edgewalk rollback -A acme --to 41 --dry-run`,
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			parent, err := c.needAccount()
			if err = cmp.Or(err, checkLimit(limit)); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				client, all := adminv1.NewHistoryServiceClient(conn), new(adminv1.ListStepsResponse)
				for token := ""; ; {
					page, err := client.ListSteps(
						ctx,
						&adminv1.ListStepsRequest{
							Parent: parent, PageSize: limit - int32(len(all.GetSteps())), PageToken: token,
						},
					)
					if err != nil {
						return err
					}
					all.Steps, all.Revision, token = append(all.GetSteps(), page.GetSteps()...), page.GetRevision(),
						page.GetNextPageToken()
					if token == "" || len(all.GetSteps()) >= int(limit) {
						break
					}
				}
				return c.print(cmd.OutOrStdout(), all, func() table { return historyTable(all.GetSteps()) })
			})
		},
	}
	addLimit(cmd, &limit, "steps")
	return cmd
}

func addLimit(cmd *cobra.Command, limit *int32, what string) {
	cmd.Flags().Int32Var(limit, "limit", defaultLines, "how many "+what+" to show at most")
}

func checkLimit(limit int32) error {
	if limit < 1 {
		return usagef("--limit %d: it is at least 1", limit)
	}
	return nil
}

func historyTable(steps []*adminv1.Step) table {
	t := table{head: []string{"REVISION", "AGE", "+TIME", "WHO", "+METHOD", "CHANGES"}}
	for _, s := range steps {
		t.rows = append(t.rows, []string{
			strconv.FormatInt(s.GetRevision(), 10), age(s.GetTime()), timeCell(s.GetTime()), whoCell(s.GetWho()),
			s.GetMethod(), changesCell(s.GetChanges(), 0),
		})
	}
	if len(steps) == 0 {
		t.below = []string{"no changes are kept"}
	}
	return t
}

func timeCell(at *timestamppb.Timestamp) string {
	return at.AsTime().UTC().Format(time.RFC3339)
}

// whoCell is who has called: a token by its id alone, and "-" for the control plane itself.
func whoCell(who string) string {
	return cmp.Or(strings.TrimPrefix(who, "tokens/"), "-")
}

// changesCell names a few resources, and how many more there are.
func changesCell(changes []*adminv1.ResourceChange, more int32) string {
	const few = 3
	var parts []string
	for i, change := range changes {
		if i == few {
			break
		}
		name := change.GetName()
		if _, rest, ok := strings.Cut(strings.TrimPrefix(name, "accounts/"), "/"); ok {
			name = rest
		}
		parts = append(parts, name+" "+actionWord(change.GetAction()))
	}
	if more += int32(max(0, len(changes)-few)); more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, ", ")
}

// revisionArg reads a revision that was typed.
func revisionArg(text string) (int64, error) {
	revision, err := strconv.ParseInt(text, 10, 64)
	if err != nil || revision <= 0 {
		return 0, usagef("%q is no revision: it is a number above 0, as edgewalk history and writes print it", text)
	}
	return revision, nil
}

func (c *cli) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff FROM [TO]",
		Short: "Show what differs between two revisions of an account",
		Long:  `Show what leads from an account at one revision to what it was at another, or to what it is now. Of secrets only that they differ is shown.`,
		Example: `  edgewalk diff -A acme 41 42
  edgewalk diff -A acme 41`,
		Args: between(1, 2, "a revision, or two"),
		RunE: func(cmd *cobra.Command, args []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			request := &adminv1.DiffRevisionsRequest{Parent: parent}
			if request.From, err = revisionArg(args[0]); err != nil {
				return err
			}
			if len(args) == 2 {
				if request.To, err = revisionArg(args[1]); err != nil {
					return err
				}
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				response, err := adminv1.NewHistoryServiceClient(conn).DiffRevisions(ctx, request)
				if err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), response,
					func() table {
						t := differencesTable(response.GetChanges(), false)
						if more := response.GetMoreChanges(); more > 0 {
							t.rows = append(t.rows,
								[]string{fmt.Sprintf("and %d more, which no answer has room for", more)})
						}
						return t
					})
			})
		},
	}
}

func differencesTable(changes []*adminv1.ResourceChange, dryRun bool) table {
	if len(changes) == 0 {
		return table{rows: [][]string{{"nothing differs"}}}
	}
	return changesTable(&adminv1.ApplyManifestResponse{Changes: changes}, dryRun)
}

func (c *cli) rollbackCommand() *cobra.Command {
	var to int64
	var dryRun bool
	var etag string
	var wait waiting
	cmd := &cobra.Command{
		Use:   "rollback --to REVISION",
		Short: "Make an account what it was at a revision",
		Long: `Make origins, endpoints and domains of an account what they were at a revision, in one step at every edge: with the secrets that they had, and without what
was made since. The account's own fields, its media files and its purges stay. It is a change like any other, and can be rolled back itself.`,
		Example: `  edgewalk history -A acme
  edgewalk rollback -A acme --to 41 --dry-run
  edgewalk rollback -A acme --to 41 --wait`,
		Args: exactly(0, "no argument but --to REVISION"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			parent, err := c.needAccount()
			switch {
			case err != nil:
				return err
			case to <= 0:
				return usagef("say where to: --to REVISION, as edgewalk history prints it")
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				response, err := adminv1.NewHistoryServiceClient(conn).Rollback(ctx,
					&adminv1.RollbackRequest{Parent: parent, Revision: to, ValidateOnly: dryRun, Etag: etag})
				if err != nil {
					return err
				}
				if err := c.print(
					cmd.OutOrStdout(), response,
					func() table { return differencesTable(response.GetChanges(), dryRun) },
				); err != nil || dryRun {
					return err
				}
				return c.waitFor(cmd, conn, response.GetRevision(), wait)
			})
		},
	}
	f := cmd.Flags()
	f.Int64Var(&to, "to", 0, "the revision whose state comes back")
	f.BoolVar(&dryRun, "dry-run", false, "only check, and show what would change")
	f.StringVar(&etag, "etag", "", "refuse unless the account still has this etag, as --dry-run -o yaml shows it")
	wait.addFlags(cmd)
	return cmd
}

func (c *cli) auditCommand() *cobra.Command {
	limit := int32(defaultLines)
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who wrote what to an account, from where",
		Long: `Show what was written to an account, the newest first, with who did it and from where; -o yaml shows the fields too, with keyed hashes in place of secrets.
Events are kept for 90 days, and of an account the last 100,000, also when it is deleted. Denied calls and reads of secrets are in the file of the control plane's
--audit-log.`,
		Example: `  edgewalk audit -A acme
  edgewalk audit -A acme --limit 1000 -o json`,
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			parent, err := c.needAccount()
			if err = cmp.Or(err, checkLimit(limit)); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				client, all := adminv1.NewAuditServiceClient(conn), new(adminv1.ListEventsResponse)
				for token := ""; ; {
					page, err := client.ListEvents(
						ctx,
						&adminv1.ListEventsRequest{
							Parent: parent, PageSize: limit - int32(len(all.GetEvents())), PageToken: token,
						},
					)
					if err != nil {
						return err
					}
					all.Events, token = append(all.GetEvents(), page.GetEvents()...), page.GetNextPageToken()
					if token == "" || len(all.GetEvents()) >= int(limit) {
						break
					}
				}
				return c.print(cmd.OutOrStdout(), all, func() table { return eventsTable(all.GetEvents()) })
			})
		},
	}
	addLimit(cmd, &limit, "events")
	return cmd
}

func eventsTable(events []*adminv1.AuditEvent) table {
	t := table{head: []string{"REVISION", "AGE", "+TIME", "WHO", "+ROLE", "+PEER", "+METHOD", "CHANGES", "+REQUEST"}}
	for _, e := range events {
		role := "-" // of an event that an older control plane has written
		if e.GetRole() != adminv1.Token_ROLE_UNSPECIFIED {
			role = strings.ToLower(e.GetRole().String())
		}
		t.rows = append(t.rows, []string{
			strconv.FormatInt(e.GetRevision(), 10), age(e.GetTime()), timeCell(e.GetTime()), whoCell(e.GetWho()), role,
			e.GetPeer(), e.GetMethod(), changesCell(e.GetChanges(), e.GetMoreChanges()), e.GetRequestId(),
		})
	}
	if len(events) == 0 {
		t.below = []string{"no events are kept"}
	}
	return t
}
