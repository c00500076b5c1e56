package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

// manCommand is for packages: it writes what --help says as manual pages.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man FOLDER",
		Short:   "Write the manual pages",
		Long:    "Write a manual page for each command into a folder, which is made if it is not there.",
		Example: "  edgewalk man /usr/local/share/man/man1",
		Hidden:  true,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			plain(root)
			return doc.GenManTree(root,
				&doc.GenManHeader{Title: "EDGEWALK", Section: "1", Source: "edgewalk", Manual: "edgewalk"}, args[0])
		},
	}
}

// plain leaves out of manual pages what is true of one terminal only.
func plain(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			f.Hidden = true
		}
	})
	for _, child := range cmd.Commands() {
		plain(child)
	}
}
