package main

import (
	"fmt"
	"log/slog"
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

// variables are those of admin commands.
var variables = []string{
	"EDGEWALK_SERVER", "EDGEWALK_CA", "EDGEWALK_CERT", "EDGEWALK_KEY", "EDGEWALK_TOKEN", "EDGEWALK_ACCOUNT", "EDGEWALK_CONTEXT",
}

// warnOfUnknown tells of variables that look as if they set a flag of edgewalk, and set none. One that is misspelled would
// otherwise leave a default in place, in silence.
func warnOfUnknown(cmd *cobra.Command, environment []string, log *slog.Logger) {
	known := map[string]bool{}
	for _, name := range variables {
		known[name] = true
	}
	prefixes := make([]string, 0, 3)
	for _, daemon := range cmd.Root().Commands() {
		if daemon.Name() != "controlplane" && daemon.Name() != "edgeagent" {
			continue
		}
		daemon.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { known[environmentName(daemon.Name(), f.Name)] = true })
		prefixes = append(prefixes, environmentName(daemon.Name(), ""))
	}
	for _, entry := range environment {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "EDGEWALK_") || known[name] {
			continue
		}
		hint := "a flag of a daemon is set by its name too, such as " + environmentName("edgeagent", "http-addr")
		for _, prefix := range prefixes {
			if rest, ok := strings.CutPrefix(name, prefix); ok {
				hint = "there is no flag --" + strings.ToLower(strings.ReplaceAll(rest, "_", "-"))
			}
		}
		log.Warn("this environment variable sets nothing", "name", name, "hint", hint)
	}
}
