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
// is kept there from now on. With an error other than that of a malformed id there is an id all the
// same, but it may not be the same next time.
func ID(stateDir, given string) (string, error) {
	if given != "" {
		return given, CheckID(given)
	}
	path := filepath.Join(stateDir, "id")
	kept, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(kept)); err == nil && idPattern.MatchString(id) {
		return id, nil
	}
	id := "edge-" + strings.ToLower(rand.Text()[:12])
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return id, fmt.Errorf("read the edge's id: %w", err)
	}
	if err := keepID(stateDir, path, id); err != nil {
		return id, fmt.Errorf("keep the edge's id: %w", err)
	}
	return id, nil
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
