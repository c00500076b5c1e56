package controlplane

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/edgewalk/edgewalk/internal/seal"
)

// secretKeyName is the file of the key that protects the secrets in etcd, in DataDir.
const secretKeyName = "secret-key"

// keyError is a fault of the key, not of etcd.
type keyError struct{ error }

func keyFault(format string, args ...any) error {
	return keyError{fmt.Errorf("--secret-key-file: "+format, args...)}
}

func (c *Config) secretKeyFile() string {
	return cmp.Or(c.SecretKeyFile, filepath.Join(c.DataDir, secretKeyName))
}

// secretKey reads the key that protects the secrets in etcd. It makes one where there is none as
// long as nothing in etcd needs it; wrappedBy is the id of the key that something needs, if any.
func (c *Config) secretKey(wrappedBy string) (*seal.Key, error) {
	path := c.secretKeyFile()
	key, err := seal.ReadKey(path)
	switch {
	case err == nil:
		return key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, keyFault("%w", err)
	case wrappedBy != "":
		return nil, keyFault("%s is not there, and what etcd holds is sealed with the key %s that was in it: "+
			"bring back that file, from another control plane or a backup; without it the secrets cannot be read",
			path, wrappedBy)
	case len(c.EtcdEndpoints) > 0 && c.SecretKeyFile == "":
		return nil, keyFault("it is required with --etcd-endpoints, because each control plane of an etcd needs the same key: " +
			"name a file that the first one shall make, and copy it to the machines of the others")
	}
	key, created, err := seal.EnsureKey(path)
	if err != nil {
		return nil, keyFault("%w", err)
	}
	if created {
		c.Logger.Info("made the key that protects the secrets in etcd: keep a copy of it apart from backups of etcd, which are worth nothing without it",
			"file", path, "key", key.ID())
	}
	return key, nil
}

// explainKey names the flag that is at fault when a store cannot be opened.
func (c *Config) explainKey(flag string, err error) error {
	var fault keyError
	switch {
	case errors.As(err, &fault):
		return err
	case errors.Is(err, seal.ErrWrongKey), errors.Is(err, seal.ErrForged):
		return keyFault("%s is not the key that what etcd holds is sealed with (%w): give that one", c.secretKeyFile(), err)
	}
	return fmt.Errorf("%s: %w", flag, err)
}
