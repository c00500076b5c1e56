package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/edgewalk/edgewalk/controlplane/internal/etcdnode"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/seal"
)

// InspectSnapshot reads a file that a snapshot was saved to, and returns the revision of the last
// write in it and how many keys of etcd it holds. It is an error if the file is damaged or cut.
func InspectSnapshot(file string) (revision int64, keys int, err error) {
	saved, err := etcdnode.Inspect(file)
	return saved.Revision, saved.Keys, err
}

// Restore fills the embedded etcd of cfg.DataDir, which must not have any data yet, from a file
// that a snapshot was saved to. Revisions go on above those of the snapshot, and a new epoch
// begins, so no edge takes what it has for what was restored. Nothing else may use the folder
// meanwhile. If cfg.SecretKeyFile is there, it must be the key that the snapshot was made with; if
// it is not, Restore returns where it is missing.
func Restore(ctx context.Context, cfg Config, file string) (missing string, err error) {
	cfg.setDefaults()
	key, err := seal.ReadKey(cfg.secretKeyFile())
	if err != nil && (cfg.SecretKeyFile != "" || !errors.Is(err, fs.ErrNotExist)) {
		return "", keyFault("%w", err)
	}
	err = store.Restore(ctx, file, filepath.Join(cfg.DataDir, etcdFolder), cfg.EtcdPrefix, key, cfg.Logger)
	if err != nil {
		return "", cfg.explainKey(fmt.Sprintf("restore %s into %s", file, cfg.DataDir), err)
	}
	if key == nil {
		return cfg.secretKeyFile(), nil
	}
	return "", nil
}
