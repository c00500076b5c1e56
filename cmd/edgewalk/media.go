package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgewalk/edgewalk/cmd/edgewalk/internal/admincli"
	"github.com/edgewalk/edgewalk/controlplane"
)

func mediaBackupCommand(log *slog.Logger) *cobra.Command {
	return mediaCopyCommand(log, controlplane.BackupMedia, &cobra.Command{
		Use:   "backup DIR",
		Short: "Copy the files of all accounts into a folder",
		Long: `Copy the files of all accounts' Media Libraries into a folder, from the folder or bucket where the control plane keeps them, while it runs or not. What is there
already is not copied again, and nothing is deleted there. Which file has which path is in the topology: save that first (edgewalk snapshot save), then the files.`,
		Example: `  edgewalk media backup /backup/media --data-dir ./edgewalk-data
  edgewalk media backup /backup/media --media-url 's3://media?region=eu-central-1'`,
	})
}

func mediaRestoreCommand(log *slog.Logger) *cobra.Command {
	return mediaCopyCommand(log, controlplane.RestoreMedia, &cobra.Command{
		Use:   "restore DIR",
		Short: "Copy a backup of the files back",
		Long: `Copy the files that media backup has copied into a folder back to where a control plane keeps them, before its first start there or while it runs. A folder or bucket
that is another library is refused. The topology is brought back by edgewalk snapshot restore.`,
		Example: `  edgewalk media restore /backup/media --data-dir ./edgewalk-data`,
	})
}

func mediaCopyCommand(
	log *slog.Logger,
	run func(context.Context, controlplane.Config, string, func(int64)) (controlplane.MediaCopied, error),
	cmd *cobra.Command,
) *cobra.Command {
	cfg := controlplane.Config{Logger: log}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		progress, began := admincli.NewProgress(cmd.ErrOrStderr(), args[0]), time.Now()
		done, err := run(cmd.Context(), cfg, args[0], progress.Add)
		progress.Done()
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s copied, %s, in %s; %d were there\n",
			admincli.Counted(int(done.Files), "file"),
			admincli.ByteSize(done.Bytes), time.Since(began).Round(100*time.Millisecond), done.There)
		return nil
	}
	f := cmd.Flags()
	f.StringVar(&cfg.DataDir, "data-dir", controlplane.DefaultDataDir, "folder of the control plane")
	f.StringVar(&cfg.MediaURL, "media-url", "", "folder or bucket where the control plane keeps the files (default media in --data-dir)")
	return cmd
}
