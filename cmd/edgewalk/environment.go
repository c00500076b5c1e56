package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/edgewalk/edgewalk/cmd/edgewalk/internal/admincli"
)

// environmentName is the variable of a daemon's flag, such as EDGEWALK_EDGEAGENT_HTTP_ADDR.
func environmentName(command, flag string) string {
	return strings.ToUpper("EDGEWALK_" + command + "_" + strings.ReplaceAll(flag, "-", "_"))
}

// useEnvironment lets each flag of the command that is not typed be set by its variable. Repeatable flags take values
// separated by commas there.
func useEnvironment(cmd *cobra.Command) {
	command := cmd.Name()
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		f.Usage += " (" + environmentName(command, f.Name) + ")"
	})
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		var failed error
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			name := environmentName(command, f.Name)
			value, ok := os.LookupEnv(name)
			if !ok || f.Changed || failed != nil {
				return
			}
			if err := cmd.Flags().Set(f.Name, value); err != nil {
				failed = admincli.AsUsage(fmt.Errorf("%s: %w", name, err))
			}
		})
		return failed
	}
}
