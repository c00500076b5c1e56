package admincli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// What is behind links counts as being here, be it the folder itself or something in it: a sync
// with --delete would delete it from the library otherwise. A link that leads to a folder above
// itself ends.
func TestTransfersFollowLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"releases/1/a.txt", "releases/1/b/c.txt", "shared/d/e.txt"} {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"current": "releases/1", "releases/1/link.txt": "a.txt", "releases/1/shared": "../../shared",
		"shared/d/up": "../..",
	} {
		if err := os.Symlink(filepath.FromSlash(to), filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			t.Skip("no links here:", err)
		}
	}
	for _, folder := range []string{"current", "releases/1"} {
		all, err := transfers([]string{filepath.Join(dir, filepath.FromSlash(folder))}, "/shop/", true)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, one := range all {
			got = append(got, one.remote)
		}
		want := []string{"shop/a.txt", "shop/b/c.txt", "shop/link.txt", "shop/shared/d/e.txt"}
		for _, path := range want {
			if !slices.Contains(got, path) {
				t.Errorf("%s: %s is missing among %q", folder, path, got)
			}
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "releases", "1", "broken")); err != nil {
		t.Fatal(err)
	}
	if all, err := transfers([]string{filepath.Join(dir, "current")}, "/shop/", true); err == nil {
		t.Errorf("with a link that leads nowhere: %v", all)
	}
}

// deletions answers the calls that delete files.
type deletions func(name string) (revision int64, err error)

func (d deletions) Invoke(_ context.Context, _ string, req, reply any, _ ...grpc.CallOption) (err error) {
	reply.(*adminv1.DeleteMediaFileResponse).Revision, err = d(req.(*adminv1.DeleteMediaFileRequest).GetName())
	return err
}

func (deletions) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	panic("a deletion has no streams")
}

// Who removes many files is told which are gone, also where that ends before all are, and of none
// that somebody else has removed.
func TestRemoveTellsWhatIsGone(t *testing.T) {
	t.Parallel()
	conn := deletions(func(name string) (int64, error) {
		switch name {
		case "missing":
			return 0, status.Error(codes.NotFound, "it does not exist")
		case "broken":
			return 0, status.Error(codes.PermissionDenied, "the token was revoked")
		}
		return 7, nil
	})
	for last, fails := range map[string]bool{"c": false, "broken": true} {
		var out bytes.Buffer
		cmd := new(cobra.Command)
		cmd.SetOut(&out)
		var files []*topologyv1.MediaFile
		for _, name := range []string{"a", "missing", "b", last} {
			files = append(files, &topologyv1.MediaFile{Name: name})
		}
		_, err := (&cli{output: "table"}).removeTold(t.Context(), cmd, conn, files, false, true)
		if (err != nil) != fails {
			t.Errorf("with %s: %v", last, err)
		}
		text := out.String()
		if !strings.Contains(text, "a deleted\n") || !strings.Contains(text, "b deleted\n") ||
			strings.Contains(text, "missing") || strings.Contains(text, "broken") {
			t.Errorf("with %s: %q", last, text)
		}
	}
}

// Uploads that an interruption keeps from being begun are no success: nothing of theirs is stored.
func TestUploadsThatAreInterruptedFail(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	start := func(transfer) *adminv1.UploadMediaFileRequest_Start {
		t.Error("an upload is begun")
		return nil
	}
	_, err := uploadAll(ctx, nil, []transfer{{"a", "a"}, {"b", "b"}}, start, NewProgress(io.Discard, "files"))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted uploads end with %v", err)
	}
}

// A sync that ends before all is done says how far it came: what is deleted cannot be seen by
// syncing again.
func TestAnInterruptedSyncTellsHowFarItCame(t *testing.T) {
	t.Parallel()
	conn := deletions(func(name string) (int64, error) {
		if name == "broken" {
			return 0, status.Error(codes.PermissionDenied, "the token was revoked")
		}
		return 7, nil
	})
	var notes bytes.Buffer
	cmd := new(cobra.Command)
	cmd.SetErr(&notes)
	s := syncing{cli: new(cli), cmd: cmd, conn: conn}
	var gone []*topologyv1.MediaFile
	for _, name := range []string{"a", "b", "broken"} {
		gone = append(gone, &topologyv1.MediaFile{Name: name})
	}
	_, err := s.write(t.Context(), nil, nil, nil, gone)
	if want := "0 of 0 files are uploaded, 2 of 3 deleted: sync again to go on\n"; err == nil || notes.String() != want {
		t.Errorf("it says %q and ends with %v, want %q", notes.String(), err, want)
	}
}
