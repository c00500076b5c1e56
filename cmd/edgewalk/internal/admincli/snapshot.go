package admincli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// snapshotCommand is `snapshot`, with what is done where the file and the data are.
func (c *cli) snapshotCommand(local Local) *cobra.Command {
	save := &cobra.Command{
		Use:   "save FILE",
		Short: "Save the topology to a file",
		Long: `Save the topology to a file, in the format of etcdctl. The file holds the origins' secrets and can be read by its owner only. The bytes of the Media Library
are not part of it: edgewalk media backup copies them.`,
		Example: "  edgewalk snapshot save edgewalk.snapshot",
		Args:    exactly(1, "the name of a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				n, err := saveSnapshot(ctx, conn, args[0], NewProgress(cmd.ErrOrStderr(), args[0]))
				if err != nil {
					return err
				}
				if !c.forPeople() {
					return c.printPlain(cmd.OutOrStdout(), map[string]any{"file": args[0], "sizeBytes": n}, args[:1])
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s (%s)\n", args[0], ByteSize(n))
				return nil
			})
		},
	}
	status := &cobra.Command{
		Use:   "status FILE",
		Short: "Tell whether a saved topology is whole, and what it holds",
		Long: `Read a file that a topology was saved to, and tell whether it is whole, the revision of the last write that it holds, and how many keys of etcd it has. It asks
nobody. The exit code is 1 if the file is damaged or cut, so a script can see to its backups.`,
		Example: "  edgewalk snapshot status edgewalk.snapshot",
		Args:    exactly(1, "the name of a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			revision, keys, err := local.InspectSnapshot(args[0])
			if err != nil {
				return err
			}
			if !c.forPeople() {
				return c.printPlain(cmd.OutOrStdout(),
					map[string]any{"file": args[0], "revision": revision, "keys": keys}, args[:1])
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is whole: revision %d, %s\n", args[0], revision, Counted(keys, "key"))
			return nil
		},
	}
	local.RestoreSnapshot.Args = exactly(1, "the name of a file")
	return group(&cobra.Command{
		Use:   "snapshot",
		Short: "Save the topology to a file, or bring it back",
		Example: `  edgewalk snapshot save edgewalk.snapshot
  edgewalk snapshot status edgewalk.snapshot
  edgewalk snapshot restore edgewalk.snapshot --data-dir ./edgewalk-data`,
	}, save, status, local.RestoreSnapshot)
}

// saveSnapshot writes a snapshot to a file that its owner alone can read.
func saveSnapshot(ctx context.Context, conn *grpc.ClientConn, target string, p *Progress) (n int64, err error) {
	defer p.Done()
	err = replaceFile(target, 0o600, func(w io.Writer) error {
		n, err = receiveSnapshot(ctx, conn, w, p)
		return err
	})
	return n, err
}

func receiveSnapshot(ctx context.Context, conn *grpc.ClientConn, w io.Writer, p *Progress) (n int64, err error) {
	stream, err := adminv1.NewSnapshotServiceClient(conn).SaveSnapshot(ctx, &adminv1.SaveSnapshotRequest{})
	if err != nil {
		return 0, err
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		m, err := w.Write(part.GetData())
		n += int64(m)
		if err != nil {
			return n, err
		}
		p.Add(int64(m))
	}
}
