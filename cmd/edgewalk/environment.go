package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
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

// useEnvironment lets each flag of the command that is not typed be set by its variable. Repeatable
// flags take values separated by commas there.
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
		if failed != nil {
			return failed
		}
		if check, _ := cmd.Flags().GetBool("check"); check {
			return checkAddresses(cmd) // It says by itself what else is wrong.
		}
		return cmp.Or(checkPairs(cmd), checkAddresses(cmd))
	}
}

// variables are those of admin commands.
var variables = []string{
	"EDGEWALK_SERVER", "EDGEWALK_CA", "EDGEWALK_CERT", "EDGEWALK_KEY", "EDGEWALK_TOKEN", "EDGEWALK_ACCOUNT",
	"EDGEWALK_CONTEXT",
}

// warnOfUnknown warns of variables that look as if they set a flag of edgewalk, and set none. One
// that is misspelled would otherwise leave a default in place, in silence.
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
		daemon.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			known[environmentName(daemon.Name(), f.Name)] = true
		})
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

// checkPairs refuses a certificate without its key, and a key without its certificate.
func checkPairs(cmd *cobra.Command) error {
	for _, prefix := range []string{"", "tls-", "etcd-"} {
		cert, key := cmd.Flags().Lookup(prefix+"cert"), cmd.Flags().Lookup(prefix+"key")
		if cert != nil && key != nil && cert.Changed != key.Changed {
			return admincli.AsUsage(fmt.Errorf("--%s and --%s go together", cert.Name, key.Name))
		}
	}
	return nil
}

// checkAddresses refuses addresses that can be none.
func checkAddresses(cmd *cobra.Command) (failed error) {
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		address := f.Value.String()
		if !strings.HasSuffix(f.Name, "-addr") || failed != nil || address == "" || address == "off" ||
			strings.HasPrefix(address, "systemd:") {
			return
		}
		if _, port, err := net.SplitHostPort(address); err != nil {
			failed = admincli.AsUsage(fmt.Errorf("--%s %s: it has no port: write it like %s", f.Name, address,
				cmp.Or(f.DefValue, "127.0.0.1:8443")))
		} else if _, err := net.LookupPort("tcp", port); err != nil {
			failed = admincli.AsUsage(fmt.Errorf("--%s %s: %q is no port: write a number from 0 to 65535", f.Name,
				address, port))
		}
	})
	return failed
}
