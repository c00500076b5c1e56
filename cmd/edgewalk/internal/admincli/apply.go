package admincli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

func (c *cli) applyCommand() *cobra.Command {
	var files []string
	a := &applying{cli: c}
	cmd := &cobra.Command{
		Use:   "apply -f FILE ...",
		Short: "Make an account what a file says",
		Long: `Make an account what a manifest says, in one step at every edge. A resource that the manifest lists is replaced whole,
secrets that it leaves out are kept, and so are the account's own fields and resources that it does not list, unless --prune
deletes those. Applying the same file again changes nothing. What get -o yaml shows can be applied too.

A manifest of more than 2,000 changes or 1 MiB is no single step. A file may have several documents, as export writes them
for a large account, and each is a step: they are applied in order, and each only if nobody but the documents before it has
changed the account since. Where one is refused, those before it stay applied, and the error says how to go on. --prune does
not go with several documents of one account. --dry-run checks each against the account as it is now, and names those that it
cannot check because they need what a document before them makes.`,
		Example: `  edgewalk apply -f acme.yaml --dry-run
  edgewalk apply -f acme.yaml --wait
  edgewalk export acme | sed s/legacy/old/ | edgewalk apply -f - --prune`,
		Args: exactly(0, "no arguments but flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usagef("say what to apply: -f FILE, or -f - for standard input")
			}
			// All of them before any is applied: a wrong name must not leave half of the work done.
			for _, name := range files {
				text, err := readFile(cmd.InOrStdin(), name)
				if err != nil {
					return err
				}
				a.documents = append(a.documents, documentsOf(name, string(text))...)
			}
			if err := a.readShown(c.account); err != nil {
				return err
			}
			if err := a.prepare(); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				revision, err := a.run(ctx, cmd, adminv1.NewManifestServiceClient(conn))
				if err != nil || a.dryRun {
					return err
				}
				return c.waitFor(cmd, conn, revision, a.wait)
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&files, "filename", "f", nil, "file with manifests in YAML or JSON, or - for standard input (repeatable)")
	f.BoolVar(&a.dryRun, "dry-run", false, "only check, and show what would change")
	f.BoolVar(&a.prune, "prune", false, "delete what the manifest does not list, in the kinds whose section it has")
	a.wait.addFlags(cmd)
	return cmd
}

// applying is one run of apply.
type applying struct {
	cli           *cli
	dryRun, prune bool
	wait          waiting
	documents     []document

	// What follows is of several documents only. One alone is the control plane's to read.
	manifests []*adminv1.Manifest
	id        uuid.UUID // under which the whole is repeated
}

// readShown finds the documents that are what get has shown.
func (a *applying) readShown(account string) (err error) {
	for i, d := range a.documents {
		if a.documents[i].shown, err = shownResources(d.text, account); err != nil {
			return fmt.Errorf("%s: %w", d.source, err)
		}
	}
	return nil
}

// prepare reads several documents, before any is applied.
func (a *applying) prepare() (err error) {
	if len(a.documents) == 1 {
		return nil
	}
	first := make(map[string]int) // by account
	for i, d := range a.documents {
		m, err := d.decode()
		if err != nil {
			return err
		}
		a.manifests = append(a.manifests, m)
		account := m.GetAccount()
		one, ok := first[account.GetId()]
		if !ok {
			first[account.GetId()] = i
			continue
		}
		if a.prune {
			return usagef("--prune: %s and %s are both of account %q, and each would delete what the other lists: apply them without --prune, and delete what they do not list",
				a.documents[one].source, d.source, account.GetId())
		}
		if etag := a.manifests[one].GetAccount().GetEtag(); account.GetEtag() != "" && account.GetEtag() != etag {
			return fmt.Errorf("%s: account.etag: it is not that of the first document of account %q: leave it out, because each document waits for the one before it", d.source, account.GetId())
		}
	}
	a.id, err = a.cli.commandID()
	return err
}

// run applies the documents in order and returns the last revision.
func (a *applying) run(
	ctx context.Context, cmd *cobra.Command, client adminv1.ManifestServiceClient,
) (revision int64, err error) {
	etags := make(map[string]string) // by account, as the document before left them
	unchecked := 0
	for i, d := range a.documents {
		request := &adminv1.ApplyManifestRequest{
			Source: &adminv1.ApplyManifestRequest_Text{Text: d.text}, Prune: a.prune, ValidateOnly: a.dryRun,
		}
		if d.shown != nil {
			request.Source = &adminv1.ApplyManifestRequest_Manifest{Manifest: d.shown}
		}
		if a.several() {
			request.Etag = etags[a.account(i)]
			request.RequestId = uuid.NewSHA1(a.id, []byte(strconv.Itoa(i))).String()
		}
		response, err := client.ApplyManifest(ctx, request)
		if err != nil && a.dryRun && reasonOf(status.Convert(err)) == "REFERENCE_MISSING" && a.needsEarlier(i) {
			unchecked++
			fmt.Fprintf(cmd.ErrOrStderr(), "not checked: %s needs what documents before it make: %s\n", d.source,
				status.Convert(err).Message())
			continue
		}
		if err != nil {
			return 0, a.stopped(i, err)
		}
		revision = max(revision, response.GetRevision())
		for _, warning := range response.GetWarnings() {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+warning)
		}
		if err := a.cli.print(
			cmd.OutOrStdout(), response, func() table { return changesTable(response, a.dryRun) },
		); err != nil {
			return 0, err
		}
		if a.several() {
			etags[a.account(i)] = response.GetEtag()
		}
		if a.several() && !a.dryRun && response.GetEtag() == "" {
			return 0, fmt.Errorf("%s is applied, but the control plane is older than this program and guards no further document: update it first", d.source)
		}
	}
	if unchecked > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "not checked: %d of %d documents\n", unchecked, len(a.documents))
	}
	return revision, nil
}

func (a *applying) several() bool { return len(a.documents) > 1 }

// account is the account of one of several documents.
func (a *applying) account(i int) string { return a.manifests[i].GetAccount().GetId() }

// needsEarlier reports whether one of several documents refers to what one before it lists.
func (a *applying) needsEarlier(i int) bool {
	if !a.several() {
		return false
	}
	origins, endpoints := make(map[string]bool), make(map[string]bool)
	for j, m := range a.manifests[:i] {
		if a.account(j) != a.account(i) {
			continue
		}
		for _, o := range m.GetOrigins() {
			origins[o.GetId()] = true
		}
		for _, e := range m.GetUrlEndpoints() {
			endpoints[e.GetId()] = true
		}
	}
	for _, e := range a.manifests[i].GetUrlEndpoints() {
		for _, o := range e.GetOrigins() {
			if origins[path.Base(o)] {
				return true
			}
		}
	}
	for _, d := range a.manifests[i].GetCustomDomains() {
		if endpoints[path.Base(d.GetUrlEndpoint())] {
			return true
		}
	}
	return false
}

// stopped is the error of a document, and what has become of the others.
func (a *applying) stopped(i int, err error) error {
	unknown := unknownOutcome(err)
	st := status.Convert(err)
	err = a.cli.explainError(fmt.Errorf("%s: %w", a.documents[i].source, err))
	if !a.several() || a.dryRun || i == 0 && !unknown {
		return err
	}
	again := "When that is fixed, go on with"
	if unknown {
		err = fmt.Errorf("%s: nobody knows whether it has happened", a.documents[i].source)
		again = "Go on with"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n  Of %d documents, %d are applied.", err, len(a.documents), i)
	if reasonOf(st) == "ETAG_MISMATCH" {
		fmt.Fprintf(&text, " Somebody else has changed the account meanwhile, and of that nothing is overwritten:\n  see what it is now, then apply the file again without account.etag.")
	} else {
		fmt.Fprintf(&text, " %s the same command and --request-id %s\n  within 15 minutes: what is applied is not applied again.", again, a.id)
	}
	return &apiError{text.String(), err}
}

// changesTable has a line for each resource that is changed, below it what differs, and how many
// there are of each kind at the end. Where nothing is changed, it names all.
func changesTable(response *adminv1.ApplyManifestResponse, dryRun bool) table {
	var t table
	counts := make(map[adminv1.ResourceChange_Action]int)
	for _, change := range response.GetChanges() {
		counts[change.GetAction()]++
	}
	quiet := counts[adminv1.ResourceChange_UNCHANGED] < len(response.GetChanges())
	suffix := ""
	if dryRun {
		suffix = " (dry run)"
	}
	for _, change := range response.GetChanges() {
		if quiet && change.GetAction() == adminv1.ResourceChange_UNCHANGED {
			continue
		}
		t.rows = append(t.rows, []string{change.GetName() + " " + actionWord(change.GetAction()) + suffix})
		if change.GetAction() != adminv1.ResourceChange_UPDATED {
			continue
		}
		for _, field := range change.GetFields() {
			t.rows = append(
				t.rows,
				[]string{fmt.Sprintf("  %s: %s → %s", field.GetPath(), orNone(field.GetBefore()),
					orNone(field.GetAfter()))},
			)
		}
	}
	var parts []string
	for action := adminv1.ResourceChange_CREATED; action <= adminv1.ResourceChange_DELETED; action++ {
		if n := counts[action]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, actionWord(action)))
		}
	}
	slices.Sort(parts)
	t.rows = append(t.rows, []string{strings.Join(parts, ", ") + suffix})
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
	var all bool
	cmd := &cobra.Command{
		Use:   "export [ACCOUNT...]",
		Short: "Print accounts as manifests",
		Long: `Print an account as a manifest, without secrets, media and purges. Applying what was exported changes nothing, and is
refused if somebody has changed the account since: its etag says so. To make another account of it, or the same in another
control plane, leave the etag out.

A large account is printed as several documents, all of the account at one moment, of which apply makes a step each. Several
accounts are documents too.`,
		Example: `  edgewalk export acme > acme.yaml
  edgewalk export -A acme -o json
  edgewalk export --all > everything.yaml`,
		Args: between(0, math.MaxInt, "ids of accounts"),
		ValidArgsFunction: func(
			cmd *cobra.Command, _ []string, _ string,
		) ([]cobra.Completion, cobra.ShellCompDirective) {
			return c.ids(cmd.Context(), "account"), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return usagef("--all exports every account: name none")
			case len(args) == 0 && !all && c.account == "":
				return usagef("say which account: edgewalk export ACCOUNT, -A ACCOUNT or --all")
			case c.output == "name":
				return usagef("--output of a manifest is yaml, json or jsonpath={...}, not %q", c.output)
			case len(args) == 0 && !all:
				args = []string{c.account}
			}
			if c.forPeople() {
				c.output = "yaml"
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) (err error) {
				if all {
					if args, err = everyAccount(ctx, conn); err != nil {
						return err
					}
				}
				for i, account := range args {
					text, err := c.export(ctx, adminv1.NewManifestServiceClient(conn), "accounts/"+account,
						cmd.ErrOrStderr())
					if err != nil {
						return err
					}
					if i > 0 && c.output == "yaml" {
						fmt.Fprintln(cmd.OutOrStdout(), "---")
					}
					if _, err := text.WriteTo(cmd.OutOrStdout()); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every account")
	return cmd
}

// everyAccount are the ids of all accounts.
func everyAccount(ctx context.Context, conn *grpc.ClientConn) (ids []string, err error) {
	k, err := kindOf("account", "List")
	if err != nil {
		return nil, err
	}
	all, err := k.listAll(ctx, conn, fieldsOf{})
	if err != nil {
		return nil, err
	}
	list := get(all, k.fields).List()
	for i := range list.Len() {
		ids = append(ids, get(list.Get(i).Message(), "id").String())
	}
	return ids, nil
}

const (
	// partResources asks for as large parts as there are.
	partResources = 1900
	// exportAttempts is how often an account may change while it is exported.
	exportAttempts = 4
)

// export returns the documents of an account. It begins again if the account changes meanwhile, so
// nothing is printed before.
func (c *cli) export(
	ctx context.Context, client adminv1.ManifestServiceClient, name string, notes io.Writer,
) (*bytes.Buffer, error) {
	progress := NewProgress(notes, name)
	defer progress.Done()
	for attempt := 1; ; attempt++ {
		text := new(bytes.Buffer)
		c.documents = 0
		token, err := "", error(nil)
		for err == nil && (c.documents == 0 || token != "") {
			var response *adminv1.ExportManifestResponse
			response, err = client.ExportManifest(ctx,
				&adminv1.ExportManifestRequest{Name: name, PageSize: partResources, PageToken: token})
			if err != nil {
				break
			}
			before := text.Len()
			err = c.print(text, response.GetManifest(), func() table { return table{} })
			progress.Add(int64(text.Len() - before))
			token = response.GetNextPageToken()
		}
		if attempt < exportAttempts && reasonOf(status.Convert(err)) == "ACCOUNT_CHANGED" {
			continue
		}
		return text, err
	}
}

// notes is where progress goes: not among the documents that a program reads with -o json or yaml.
func (c *cli) notes(cmd *cobra.Command) io.Writer {
	if c.forPeople() {
		return cmd.OutOrStdout()
	}
	return cmd.ErrOrStderr()
}
