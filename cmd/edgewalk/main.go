// Command edgewalk delivers files over URL-endpoints: the control plane, the edge agent, the
// admin's commands, and a demonstration of all of them in one binary.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/edgewalk/edgewalk/cmd/edgewalk/internal/admincli"
	"github.com/edgewalk/edgewalk/controlplane"
	"github.com/edgewalk/edgewalk/internal/buildinfo"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the program in order; from then on the default applies, so that a
	// second one ends it at once.
	context.AfterFunc(ctx, stop)
	// What libraries say through the log package goes the same way as ours.
	slog.SetDefault(newLogger(os.Stderr, logOptions{}))
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run carries out one command line and returns the exit code: 0 done, 1 failed, 2 wrong use.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root, out := newRoot(stderr), &written{Writer: stdout}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	addCompletion(root)
	err := unknownCommand(root, args)
	if err == nil {
		err = cmp.Or(root.ExecuteContext(ctx), out.err)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return 1
	}
	output, _ := root.PersistentFlags().GetString("output")
	admincli.WriteError(stderr, err, output)
	if admincli.IsUsage(err) {
		return 2
	}
	return 1
}

// written is standard output. It keeps the first error, so that no command whose output is lost
// succeeds.
type written struct {
	io.Writer
	err error
}

// Write implements [io.Writer].
func (w *written) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.err = cmp.Or(w.err, err)
	return n, err
}

// Fd is that of a file, by which a terminal tells its width; of nothing else it is one that is not
// open.
func (w *written) Fd() uintptr {
	if f, ok := w.Writer.(*os.File); ok {
		return f.Fd()
	}
	return ^uintptr(0)
}

// unknownCommand returns an error if a word stands where a command should and is none. It looks
// before flags are parsed, because those of a command that is mistyped are unknown too.
func unknownCommand(root *cobra.Command, args []string) error {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(args...)
	cmd := root
	flags := cmd.PersistentFlags()
	for i := 0; i < len(args); i++ {
		name, isFlag := strings.CutPrefix(args[i], "-")
		switch {
		case isFlag:
			name = strings.TrimPrefix(name, "-")
			flag := flags.Lookup(name)
			if flag == nil && len(name) == 1 {
				flag = flags.ShorthandLookup(name)
			}
			switch {
			case strings.Contains(name, "="):
			case flag == nil:
				return nil // Its value, if it takes one, would look like a command.
			case flag.NoOptDefVal == "":
				i++
			}
			continue
		case strings.HasPrefix(args[i], "__complete"):
			return nil
		}
		child := childOf(cmd, args[i])
		if child == nil {
			return admincli.AsUsage(fmt.Errorf("unknown command %q for %q%s", args[i], cmd.CommandPath(),
				fieldpath.Hint(args[i], namesOf(cmd)...)))
		}
		if cmd = child; !cmd.HasSubCommands() || cmd.Name() == "completion" {
			return nil
		}
	}
	return nil
}

func childOf(cmd *cobra.Command, name string) *cobra.Command {
	for _, child := range cmd.Commands() {
		if child.Name() == name || child.HasAlias(name) {
			return child
		}
	}
	return nil
}

func namesOf(cmd *cobra.Command) (names []string) {
	for _, child := range cmd.Commands() {
		if !child.Hidden {
			names = append(names, child.Name())
		}
	}
	return names
}

// helpCommand is cobra's, but for what it says of a command that there is not.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Tell about a command",
		Example: "  edgewalk help apply",
		ValidArgsFunction: func(
			cmd *cobra.Command, args []string, _ string,
		) ([]cobra.Completion, cobra.ShellCompDirective) {
			at := cmd.Root()
			for _, arg := range args {
				if at = childOf(at, arg); at == nil {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
			}
			return namesOf(at), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			at := cmd.Root()
			for _, arg := range args {
				child := childOf(at, arg)
				if child == nil {
					return admincli.AsUsage(fmt.Errorf("unknown command %q for %q%s", arg, at.CommandPath(),
						fieldpath.Hint(arg, namesOf(at)...)))
				}
				at = child
			}
			at.InitDefaultHelpFlag()
			return at.Help()
		},
	}
}

func newRoot(stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "edgewalk",
		Short: "Deliver files over URL-endpoints, from wherever they lie",
		Long: `edgewalk delivers files over URL-endpoints: stable URLs behind which an edge looks for a file in a Media Library and then in
one storage after the other, and keeps what it found on disk.

  edgewalk dev            shows all of it on this machine
  edgewalk controlplane   keeps the topology, and streams it to every edge
  edgewalk edgeagent      serves the files`,
		Example: `  edgewalk dev
  edgewalk apply -f acme.yaml --wait
  edgewalk explain https://images.example.com/a.jpg`,
		Version:       buildinfo.Get().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("edgewalk {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return admincli.AsUsage(fmt.Errorf("%w; see %s --help", err, cmd.CommandPath()))
	})
	root.AddGroup(&cobra.Group{ID: "daemon", Title: "Running:"})
	log := newLogger(stderr, logOptions{})
	for _, cmd := range []*cobra.Command{devCommand(log), controlplaneCommand(), edgeagentCommand()} {
		cmd.GroupID = "daemon"
		root.AddCommand(cmd)
		hideSharedFlags(cmd)
	}
	admincli.AddCommands(root, admincli.Local{
		RestoreSnapshot: restoreCommand(), InspectSnapshot: controlplane.InspectSnapshot, ResetToken: resetCommand(),
		BackupMedia: mediaBackupCommand(log), RestoreMedia: mediaRestoreCommand(log),
	})
	root.AddCommand(versionCommand(), manCommand())
	root.SetHelpCommand(helpCommand())
	fitHelp(root)
	refuseWrongWords(root)
	return root
}

// addCompletion adds the scripts for shells, which Cobra writes to where root writes by now.
// A shell without a script is wrong use: its user would run the help.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			refuseWrongWords(cmd)
		}
	}
}

// hideSharedFlags keeps the flags of admin commands out of the help of a daemon, which has no use
// for them.
func hideSharedFlags(daemon *cobra.Command) {
	help := daemon.HelpFunc()
	daemon.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { f.Hidden = true })
		help(cmd, args)
	})
}

// refuseWrongWords makes wrong numbers of arguments a matter of usage, as wrong flags are.
func refuseWrongWords(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return admincli.AsUsage(err)
			}
			return nil
		}
	}
	for _, child := range cmd.Commands() {
		refuseWrongWords(child)
	}
}
