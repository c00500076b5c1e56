package control

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/diskfault"
	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
)

var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// CheckID says why an id cannot be that of an edge.
func CheckID(id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("edge id %q: use 1 to 63 of a-z, 0-9, ., _ and -, beginning with a letter or digit", id)
	}
	return nil
}

// ID is the edge's id: given, or else the one kept in the state folder, or else a random one that
// is kept there from now on. One that the disk does not let be read is replaced. If the disk does
// not take that either, there is an id together with the error, and another one at the next start.
func ID(stateDir, given string) (string, error) {
	if given != "" {
		if err := CheckID(given); err != nil {
			return "", err
		}
		return given, nil
	}
	path := filepath.Join(stateDir, "id")
	kept, unread := os.ReadFile(path)
	if id := strings.TrimSpace(string(kept)); unread == nil && idPattern.MatchString(id) {
		return id, nil
	}
	damaged := diskfault.IsDamage(unread)
	if unread != nil && !damaged && !errors.Is(unread, fs.ErrNotExist) {
		return "", fmt.Errorf("read the edge's id: %w", unread)
	}
	id := "edge-" + strings.ToLower(rand.Text()[:12])
	switch err := keepID(stateDir, path, id); {
	case err == nil:
		return id, nil
	case damaged:
		return id, fmt.Errorf("read the edge's id: %w", unread)
	default:
		return "", fmt.Errorf("keep the edge's id: %w", err)
	}
}

// keepID puts the whole id in place at once, so that an agent which is killed meanwhile does not
// find half of it.
func keepID(stateDir, path, id string) error {
	if err := state.MakeDir(stateDir); err != nil {
		return err
	}
	f, err := os.CreateTemp(stateDir, "id-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(id + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
