package auth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// FileOf is the file of the token that a first start makes of a role, in a folder.
func FileOf(dir string, role Role) string {
	return filepath.Join(dir, strings.ToLower(role.String())+"-token")
}

// First makes a token of a role that is for everything and never expires, and writes it to the
// folder's [FileOf], readable by the user alone, unless a control plane of this etcd has done so
// before. It returns the file, empty if it was done before.
func First(ctx context.Context, s *store.Store, dir string, role Role) (file string, err error) {
	mark := store.Entry{Key: "first/" + strings.ToLower(role.String())}
	there, _, err := s.Auth(ctx, mark.Key)
	if err != nil {
		return "", fmt.Errorf("read whether there is a %s token: %w", mark.Key, err)
	}
	if len(there) > 0 {
		return "", nil
	}
	return write(ctx, s, dir, role, "first start", mark)
}

// Reset makes another root token, writes it to the folder's [FileOf], and ends all that there were,
// which it counts.
func Reset(ctx context.Context, s *store.Store, dir string) (file string, revoked int, err error) {
	entries, _, err := s.Auth(ctx, folder)
	if err != nil {
		return "", 0, fmt.Errorf("read tokens: %w", err)
	}
	if file, err = write(ctx, s, dir, adminv1.Token_ROOT, "reset"); err != nil {
		return "", 0, err
	}
	for _, e := range entries {
		r, _, err := parseRecord(e.Value)
		if err == nil && r.Role != adminv1.Token_ROOT.String() {
			continue // What cannot be read goes too.
		}
		if err := deleteEntry(ctx, s, e); err != nil {
			return "", 0, fmt.Errorf("revoke %s: %w", e.Key, err)
		}
		revoked++
	}
	return file, revoked, nil
}

// deleteEntry deletes a token even while it is noted that it is used.
func deleteEntry(ctx context.Context, s *store.Store, e store.Entry) error {
	for {
		_, err := s.ChangeAuth(ctx, store.Entry{Key: e.Key, Revision: e.Revision})
		if !errors.Is(err, store.ErrConflict) || ctx.Err() != nil {
			return err
		}
		now, _, err := s.Auth(ctx, e.Key)
		if err != nil {
			return err
		}
		for _, found := range now {
			if found.Key == e.Key {
				e.Revision = found.Revision
			}
		}
	}
}

// write writes the file before the token counts: who is stopped in between leaves a file that is of
// no use, and begins again.
func write(
	ctx context.Context, s *store.Store, dir string, role Role, creator string, marks ...store.Entry,
) (file string, err error) {
	w := Wanted{
		Role: role, Account: EveryAccount, Description: "written to " + filepath.Base(FileOf(dir, role)),
		Creator: creator,
	}
	text, id, r := w.make(time.Now())
	file = FileOf(dir, role)
	if err := writeFile(file, text); err != nil {
		return "", fmt.Errorf("write token: %w", err)
	}
	changes := []store.Entry{{Key: folder + id, Value: r.value()}}
	for _, mark := range marks {
		mark.Value = []byte(id)
		changes = append(changes, mark)
	}
	_, err = s.ChangeAuth(ctx, changes...)
	switch {
	case errors.Is(err, store.ErrConflict): // Another control plane was faster.
		return "", os.Remove(file)
	case err != nil:
		return "", fmt.Errorf("store token: %w", err)
	}
	return file, nil
}

// writeFile replaces a file that the user alone may read, and returns once it is on disk.
func writeFile(file, text string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err := f.WriteString(text + "\n"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
