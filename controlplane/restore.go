package controlplane

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Restore fills the embedded etcd of cfg.DataDir, which must not have any data yet, from a file that a snapshot was saved to.
// Revisions go on above those of the snapshot, and a new epoch begins, so no edge takes what it has for what was restored.
// Nothing else may use the folder meanwhile.
func Restore(ctx context.Context, cfg Config, file string) error {
	cfg.setDefaults()
	if err := store.Restore(ctx, file, filepath.Join(cfg.DataDir, etcdFolder), cfg.EtcdPrefix, cfg.Logger); err != nil {
		return fmt.Errorf("restore %s into %s: %w", file, cfg.DataDir, err)
	}
	return nil
}
