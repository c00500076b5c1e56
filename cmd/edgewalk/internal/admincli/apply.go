package admincli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

func (c *cli) applyCommand() *cobra.Command {
	var files []string
	var dryRun, prune bool
	var wait waiting
	cmd := &cobra.Command{
		Use:   "apply -f FILE ...",
		Short: "Make an account what a file says",
		Long: `Make an account what a manifest says, in one step at every edge. A resource that the manifest lists is replaced whole, secrets that it leaves out
are kept, resources that it does not list are kept unless --prune. Applying the same file again changes nothing.`,
		Example: `  edgewalk apply -f acme.yaml --dry-run
  edgewalk apply -f acme.yaml --wait
  edgewalk export acme | sed s/legacy/old/ | edgewalk apply -f - --prune`,
		Args: exactly(0, "no arguments but flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usagef("say what to apply: -f FILE, or -f - for standard input")
			}
			// All of them before any is applied: a wrong name must not leave half of the work done.
			texts := make([]string, len(files))
			for i, name := range files {
				text, err := readFile(cmd.InOrStdin(), name)
				if err != nil {
					return err
				}
				texts[i] = string(text)
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				var revision int64
				for i, name := range files {
					response, err := adminv1.NewManifestServiceClient(conn).ApplyManifest(ctx, &adminv1.ApplyManifestRequest{
						Source: &adminv1.ApplyManifestRequest_Text{Text: texts[i]}, Prune: prune, ValidateOnly: dryRun,
					})
					if err != nil {
						return fmt.Errorf("%s: %w", sourceName(name), err)
					}
					revision = max(revision, response.GetRevision())
					for _, warning := range response.GetWarnings() {
						fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+warning)
					}
					if err := c.print(cmd.OutOrStdout(), response, func() table { return changesTable(response, dryRun) }); err != nil {
						return err
					}
				}
				if dryRun {
					return nil
				}
				return c.waitFor(cmd, conn, revision, wait)
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&files, "filename", "f", nil, "file with a manifest in YAML or JSON, or - for standard input (repeatable)")
	f.BoolVar(&dryRun, "dry-run", false, "only check, and show what would change")
	f.BoolVar(&prune, "prune", false, "delete what the manifest does not list, in the kinds whose section it has")
	wait.addFlags(cmd)
	return cmd
}

// changesTable has a line for each resource, and below it what differs.
func changesTable(response *adminv1.ApplyManifestResponse, dryRun bool) table {
	var t table
	for _, change := range response.GetChanges() {
		line := change.GetName() + " " + actionWord(change.GetAction())
		if dryRun {
			line += " (dry run)"
		}
		t.rows = append(t.rows, []string{line})
		if change.GetAction() != adminv1.ResourceChange_UPDATED {
			continue
		}
		for _, field := range change.GetFields() {
			t.rows = append(t.rows, []string{fmt.Sprintf("  %s: %s → %s", field.GetPath(), orNone(field.GetBefore()), orNone(field.GetAfter()))})
		}
	}
	return t
}

func orNone(text string) string {
	if text == "" {
		return "(none)"
	}
	return text
}

func actionWord(a adminv1.ResourceChange_Action) string {
	switch a {
	case adminv1.ResourceChange_CREATED:
		return "created"
	case adminv1.ResourceChange_UPDATED:
		return "updated"
	case adminv1.ResourceChange_UNCHANGED:
		return "unchanged"
	case adminv1.ResourceChange_DELETED:
		return "deleted"
	default:
		return a.String()
	}
}

func (c *cli) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export ACCOUNT",
		Short: "Print an account as a manifest",
		Long:  "Print an account as a manifest, without secrets, media and purges. Applying what was exported changes nothing.",
		Example: `  edgewalk export acme > acme.yaml
  edgewalk export acme -o json`,
		Args: exactly(1, "the account's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.output == "table" {
				c.output = "yaml"
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				response, err := adminv1.NewManifestServiceClient(conn).ExportManifest(ctx, &adminv1.ExportManifestRequest{Name: "accounts/" + args[0]})
				if err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), response.GetManifest(), func() table { return table{} })
			})
		},
	}
}

// notes is where progress goes: not among the documents that a program reads with -o json or yaml.
func (c *cli) notes(cmd *cobra.Command) io.Writer {
	if c.output == "table" {
		return cmd.OutOrStdout()
	}
	return cmd.ErrOrStderr()
}
