package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/edgewalk/edgewalk/cmd/edgewalk/internal/admincli"
	"github.com/edgewalk/edgewalk/internal/buildinfo"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which edgewalk this is",
		Long: `Print the version of this program, the commit that it was built from and its date, the compiler and the platform.
status and edges say which versions control planes and edges run.`,
		Example: `  edgewalk version
  edgewalk version -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, out := buildinfo.Get(), cmd.OutOrStdout()
			switch format, _ := cmd.Flags().GetString("output"); format {
			case "table":
				_, err := fmt.Fprintln(out, "edgewalk", info)
				return err
			case "json":
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				return enc.Encode(info)
			case "yaml":
				text, err := yaml.Marshal(info)
				if err != nil {
					return err
				}
				_, err = out.Write(text)
				return err
			default:
				return admincli.AsUsage(fmt.Errorf("--output is table, json or yaml, not %q", format))
			}
		},
	}
}
