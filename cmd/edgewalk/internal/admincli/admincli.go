// Package admincli is the admin's side of the edgewalk command: each of its commands is one or a
// few calls of the admin API.
//
// It owns what a person types and reads: flags, tables, progress, and errors in words. It holds no
// rules about resources; the control plane checks everything, so that scripts and people get the
// same errors. Secrets are never printed, because the API never returns them.
package admincli

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Local are commands that work on the folders of a control plane and not through the API.
type Local struct {
	// RestoreSnapshot brings a snapshot back.
	RestoreSnapshot *cobra.Command
	// InspectSnapshot reads a snapshot: the revision of its last write, and how many keys it holds.
	InspectSnapshot func(file string) (revision int64, keys int, err error)
	// ResetToken makes a new root token.
	ResetToken *cobra.Command
	// BackupMedia and RestoreMedia copy the files of Media Libraries.
	BackupMedia, RestoreMedia *cobra.Command
}

// AddCommands adds every admin command, and the flags they share, to root.
func AddCommands(root *cobra.Command, local Local) {
	c := &cli{}
	c.addFlags(root)
	for _, cmd := range []*cobra.Command{
		c.applyCommand(), c.exportCommand(),
		c.createCommand(), c.updateCommand(), c.editCommand(), c.getCommand(), c.describeCommand(), c.deleteCommand(),
		c.mediaCommand(local), c.purgeCommand(),
		c.statusCommand(), c.trafficCommand(), c.edgesCommand(),
		c.waitCommand(), c.freezeCommand(), c.pinCommand(), c.unfreezeCommand(),
		c.explainCommand(), c.explainFieldCommand(), c.referenceCommand(), c.testCommand(),
		c.snapshotCommand(local), c.secretsCommand(), c.historyCommand(), c.diffCommand(),
		c.rollbackCommand(), c.auditCommand(), c.domainsCommand(), c.tokenCommand(local.ResetToken), c.loginCommand(),
		c.contextCommand(),
	} {
		cmd.GroupID = "admin"
		root.AddCommand(cmd)
	}
	root.AddGroup(&cobra.Group{ID: "admin", Title: "Managing accounts:"})
}

// cli holds what the shared flags say.
type cli struct {
	server, ca, cert, key, output, account, requestID string
	context                                           string

	flags *pflag.FlagSet
	// token and authorities are those of the context in use.
	token, authorities string

	several uuid.UUID // the command's id, if it makes several writes

	documents int // printed so far
}

func (c *cli) addFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	c.flags = f
	f.StringVar(&c.server, "server", envOr("EDGEWALK_SERVER", "127.0.0.1:7070"), "address of the control plane's admin API, https:// in front for TLS (EDGEWALK_SERVER)")
	f.StringVar(&c.ca, "ca", envOr("EDGEWALK_CA", ""), "file with the CA certificates to trust; the connection then uses TLS (EDGEWALK_CA)")
	f.StringVar(&c.cert, "cert", envOr("EDGEWALK_CERT", ""), "file with the certificate to show to a control plane that asks for one; the connection then uses TLS (EDGEWALK_CERT)")
	f.StringVar(&c.key, "key", envOr("EDGEWALK_KEY", ""), "file with the key of --cert (EDGEWALK_KEY)")
	f.StringVar(&c.context, "context", envOr("EDGEWALK_CONTEXT", ""), "name under which edgewalk login keeps server, CA and token (EDGEWALK_CONTEXT)")
	f.StringVarP(&c.output, "output", "o", "table", "how to print: table, wide (uncut, with all columns), name, json, yaml or jsonpath={...}")
	f.StringVarP(&c.account, "account", "A", envOr("EDGEWALK_ACCOUNT", ""), "id of the account (EDGEWALK_ACCOUNT)")
	f.StringVar(&c.requestID, "request-id", "", "repeat a write whose outcome is unknown, under the id that its error names; of several writes of one command, each has an id of its own that is made of it")
	c.completeFlags(root)
}

// usageError is a command typed wrong: the program ends with 2 instead of 1.
type usageError struct{ error }

// Unwrap returns what is wrong.
func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// IsUsage reports whether err is about the words of a command rather than about carrying it out.
func IsUsage(err error) bool {
	var u usageError
	return errors.As(err, &u)
}

// AsUsage marks err as being about the words of a command.
func AsUsage(err error) error { return usageError{err} }

// exactly asks for n arguments, described by what.
func exactly(n int, what string) cobra.PositionalArgs { return between(n, n, what) }

// between asks for least to most arguments, described by what.
func between(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usagef("%s takes %s, got %s; see %s --help", cmd.CommandPath(), what, Counted(len(args), "argument"),
				cmd.CommandPath())
		}
		return nil
	}
}

// Counted says how many there are of a thing: `no file`, `1 file`, `2 files`.
func Counted(n int, thing string) string {
	switch n {
	case 0:
		return "no " + thing
	case 1:
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// group makes cmd say what its commands are, and refuse words that are none of them.
func group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(children...)
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// needAccount returns the parent name of --account.
func (c *cli) needAccount() (string, error) {
	if c.account == "" {
		return "", usagef("say which account: --account ID (or EDGEWALK_ACCOUNT)")
	}
	return "accounts/" + c.account, nil
}
