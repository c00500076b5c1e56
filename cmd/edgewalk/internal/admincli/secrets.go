package admincli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/edgewalk/edgewalk/internal/seal"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

func (c *cli) secretsCommand() *cobra.Command {
	rotate := &cobra.Command{
		Use:   "rotate",
		Short: "Seal all secrets of origins with new keys",
		Long: `Make new keys and seal all secrets of origins with them, in steps. Edges are sent the keys and the steps, and nothing is interrupted. Run it when somebody may
have read the keys, or from time to time. Broken off, it may be run again.

The first key in the file of --secret-key-file protects the new keys. To replace that one: give all control planes files with both, the old line first; then the
new line first; rotate; and remove the old line.`,
		Example: "  edgewalk secrets rotate",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				stream, err := adminv1.NewSecretServiceClient(conn).RotateSecrets(ctx, &adminv1.RotateSecretsRequest{})
				if err != nil {
					return err
				}
				last := new(adminv1.RotateSecretsResponse)
				for {
					now, err := stream.Recv()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						return err
					}
					last = now
				}
				return c.print(cmd.OutOrStdout(), last, func() table {
					return table{rows: [][]string{{fmt.Sprintf("secrets of %d origins are sealed with new keys",
						last.GetSealed())}}}
				})
			})
		},
	}
	newKey := &cobra.Command{
		Use:   "new-key FILE",
		Short: "Make a key for --secret-key-file or --state-key-file",
		Long: `Make a random key in a new file that only its owner may read. Control planes of one etcd share one (--secret-key-file); each edge has its own
(--state-key-file).`,
		Example: "  edgewalk secrets new-key /etc/edgewalk/secret-key",
		Args:    exactly(1, "the name of a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := seal.CreateKey(args[0])
			return err
		},
	}
	return group(&cobra.Command{
		Use:   "secrets",
		Short: "Keys that secrets of origins are sealed with",
		Example: `  edgewalk secrets rotate
  edgewalk secrets new-key /etc/edgewalk/secret-key`,
	}, rotate, newKey)
}
