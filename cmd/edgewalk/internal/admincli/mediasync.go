package admincli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/contenttype"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// atOnce is how many files are transferred at the same time.
const atOnce = 8

// transfer is a file here and its path in the library.
type transfer struct {
	local  string
	remote string // without a leading slash
}

// transfers are what files, and with recursive the files below folders, become below target. Two
// files of one path are refused: the second would silently replace the first.
func transfers(files []string, target string, recursive bool) (all []transfer, err error) {
	from := make(map[string]string)
	add := func(local, remote string) error {
		remote = strings.TrimPrefix(remote, "/")
		if first, ok := from[remote]; ok {
			return usagef("%s and %s would both become /%s: upload them to folders of their own, or their folder with -r", first, local, remote)
		}
		from[remote] = local
		all = append(all, transfer{local, remote})
		return nil
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil || !info.IsDir() || !recursive {
			if err := add(file, remotePath(file, target)); err != nil {
				return nil, err
			}
			continue
		}
		err = filesBelow(file, nil, func(name string) error {
			below, err := filepath.Rel(file, name)
			if err != nil {
				return err
			}
			return add(name, target+filepath.ToSlash(below))
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// filesBelow calls file for every file below a folder, in the order of names. It follows links,
// because what is behind one is here too: only those to a folder that it is in it passes over.
func filesBelow(folder string, in []fs.FileInfo, file func(name string) error) error {
	info, err := os.Stat(folder)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(in, func(above fs.FileInfo) bool { return os.SameFile(above, info) }) {
		return nil
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	in = append(slices.Clip(in), info)
	for _, entry := range entries {
		name, kind := filepath.Join(folder, entry.Name()), entry.Type()
		if kind&fs.ModeSymlink != 0 {
			behind, err := os.Stat(name)
			if err != nil {
				return err
			}
			kind = behind.Mode().Type()
		}
		switch {
		case kind.IsDir():
			err = filesBelow(name, in, file)
		case kind.IsRegular():
			err = file(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// uploadAll sends files, several at once, and returns what has become of each, in their order.
// After the first that fails no further one is begun.
func uploadAll(
	ctx context.Context, conn grpc.ClientConnInterface, files []transfer,
	start func(transfer) *adminv1.UploadMediaFileRequest_Start, p *Progress,
) ([]*adminv1.UploadMediaFileResponse, error) {
	responses := make([]*adminv1.UploadMediaFileResponse, len(files))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, file := range files {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			response, err := upload(ctx, conn, file.local, start(file), p)
			if err != nil {
				return fmt.Errorf("upload %s: %w", file.local, err)
			}
			responses[i] = response
			return nil
		})
	}
	err := group.Wait()
	p.Done()
	return responses, err
}

// storedWord says what an upload did.
func storedWord(response *adminv1.UploadMediaFileResponse) string {
	switch response.GetOutcome() {
	case adminv1.UploadMediaFileResponse_REPLACED:
		return "replaced"
	case adminv1.UploadMediaFileResponse_UNCHANGED:
		return "unchanged"
	}
	return "stored"
}

func (c *cli) syncCommand() *cobra.Command {
	var remove, dryRun bool
	var tags []string
	var wait waiting
	cmd := &cobra.Command{
		Use:   "sync DIR PATH/",
		Short: "Make a folder of the library like one here",
		Long: `Upload the files below a folder that the library does not have or has with other bytes, several at once. Files that are
the same are left alone, and those that are replaced keep their tags and content type. With --delete, what the folder of the
library has besides is deleted.`,
		Example: `  edgewalk media sync shots/ /shop/ -A acme --dry-run
  edgewalk media sync shots/ /shop/ -A acme --delete --wait`,
		Args: exactly(2, "a folder here and one of the library, such as /shop/"),
		RunE: func(cmd *cobra.Command, args []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			if !strings.HasSuffix(args[1], "/") {
				return usagef("a folder of the library ends with /, as in %s/", args[1])
			}
			if info, err := os.Stat(args[0]); err != nil || !info.IsDir() {
				return cmp.Or(err, usagef("%s is no folder", args[0]))
			}
			files, err := transfers(args[:1], args[1], true)
			if err != nil {
				return err
			}
			if err := c.writeSeveral(); err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				s := syncing{
					cli: c, cmd: cmd, conn: conn, parent: parent, folder: strings.TrimPrefix(args[1], "/"),
					remove: remove, dryRun: dryRun, tags: tags,
				}
				revision, err := s.run(ctx, files)
				if err != nil || dryRun {
					return err
				}
				return c.waitFor(cmd, conn, revision, wait)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&remove, "delete", false, "delete files of the library's folder that are not here")
	f.BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	f.StringSliceVar(&tags, "tag", nil, "a cache tag of what is uploaded, for purges (repeatable)")
	wait.addFlags(cmd)
	return cmd
}

// syncing is one run of sync.
type syncing struct {
	cli            *cli
	cmd            *cobra.Command
	conn           grpc.ClientConnInterface
	parent, folder string
	remove, dryRun bool
	tags           []string
}

// syncResult is what --output json says of a sync.
type syncResult struct {
	Stored    []string `json:"stored"`
	Replaced  []string `json:"replaced"`
	Deleted   []string `json:"deleted"`
	Unchanged int      `json:"unchanged"`
	DryRun    bool     `json:"dryRun,omitempty"`
	Revision  int64    `json:"revision,omitempty,string"`
}

// run returns the revision of the last write, 0 if there was none.
func (s *syncing) run(ctx context.Context, files []transfer) (revision int64, err error) {
	there, err := mediaBelow(ctx, s.conn, s.parent, s.folder)
	if err != nil {
		return 0, err
	}
	sums, err := hashes(ctx, files)
	if err != nil {
		return 0, err
	}
	result := syncResult{Stored: []string{}, Replaced: []string{}, Deleted: []string{}, DryRun: s.dryRun}
	here := make(map[string]bool, len(files))
	var todo []transfer
	sumOf := make(map[string]string)
	for i, file := range files {
		here[file.remote] = true
		sumOf[file.remote] = sums[i]
		stored, ok := there[file.remote]
		switch name := s.parent + "/mediaFiles/" + file.remote; {
		case ok && stored.GetSha256() == sums[i]:
			result.Unchanged++
			continue
		case ok:
			result.Replaced = append(result.Replaced, name)
		default:
			result.Stored = append(result.Stored, name)
		}
		todo = append(todo, file)
	}
	var gone []*topologyv1.MediaFile
	for path, f := range there {
		if s.remove && !here[path] {
			gone = append(gone, f)
		}
	}
	slices.SortFunc(gone, func(a, b *topologyv1.MediaFile) int { return strings.Compare(a.GetName(), b.GetName()) })
	for _, f := range gone {
		result.Deleted = append(result.Deleted, f.GetName())
	}
	if !s.dryRun {
		if revision, err = s.write(ctx, todo, sumOf, there, gone); err != nil {
			return 0, err
		}
		result.Revision = revision
	}
	return revision, s.tell(result)
}

// write uploads and deletes.
func (s *syncing) write(
	ctx context.Context, todo []transfer, sums map[string]string, there map[string]*topologyv1.MediaFile,
	gone []*topologyv1.MediaFile,
) (revision int64, err error) {
	p := NewProgress(s.cmd.ErrOrStderr(), Counted(len(todo), "file"))
	responses, err := uploadAll(ctx, s.conn, todo, func(file transfer) *adminv1.UploadMediaFileRequest_Start {
		// A file keeps its tags, and its content type as it was given, when its bytes are replaced.
		next := &topologyv1.MediaFile{Tags: s.tags}
		if was := there[file.remote]; was != nil {
			next.Etag = was.GetEtag()
			next.ContentType = contenttype.Kept(file.remote, was.GetContentType(), headOf(file.local))
			if len(next.Tags) == 0 {
				next.Tags = was.GetTags()
			}
		}
		return &adminv1.UploadMediaFileRequest_Start{
			Parent: s.parent, Path: file.remote, Sha256: sums[file.remote], MediaFile: next,
		}
	}, p)
	for _, response := range responses {
		revision = max(revision, response.GetRevision())
		for _, warning := range response.GetWarnings() {
			fmt.Fprintln(s.cmd.ErrOrStderr(), "warning: "+warning)
		}
	}
	var deleted []string
	if err == nil {
		var last int64
		deleted, last, err = removeAll(ctx, s.conn, gone, true)
		revision = max(revision, last)
	}
	if err != nil {
		uploaded := len(slices.DeleteFunc(responses, func(r *adminv1.UploadMediaFileResponse) bool { return r == nil }))
		fmt.Fprintf(s.cmd.ErrOrStderr(), "%d of %d files are uploaded, %d of %d deleted: sync again to go on\n", uploaded,
			len(todo), len(deleted), len(gone))
		return 0, err
	}
	return revision, nil
}

// headOf is what a file begins with. Who uploads it finds out why it cannot be read.
func headOf(file string) []byte {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	head := make([]byte, 512)
	n, _ := io.ReadFull(f, head)
	return head[:n]
}

func (s *syncing) tell(r syncResult) error {
	if !s.cli.forPeople() {
		return s.cli.printPlain(s.cmd.OutOrStdout(), r, slices.Concat(r.Stored, r.Replaced, r.Deleted))
	}
	suffix := ""
	if r.DryRun {
		suffix = " (dry run)"
	}
	var t table
	for _, one := range []struct {
		names []string
		word  string
	}{{r.Stored, "stored"}, {r.Replaced, "replaced"}, {r.Deleted, "deleted"}} {
		for _, name := range one.names {
			t.rows = append(t.rows, []string{name + " " + one.word + suffix})
		}
	}
	t.rows = append(
		t.rows,
		[]string{fmt.Sprintf("%d stored, %d replaced, %d deleted, %d unchanged%s", len(r.Stored), len(r.Replaced),
			len(r.Deleted), r.Unchanged, suffix)},
	)
	return t.write(s.cmd.OutOrStdout(), true)
}

// hashes are the SHA-256 sums of files, in their order.
func hashes(ctx context.Context, files []transfer) ([]string, error) {
	sums := make([]string, len(files))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, file := range files {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f, err := os.Open(file.local)
			if err != nil {
				return err
			}
			defer f.Close()
			sum := sha256.New()
			if _, err := io.Copy(sum, f); err != nil {
				return err
			}
			sums[i] = hex.EncodeToString(sum.Sum(nil))
			return nil
		})
	}
	return sums, group.Wait()
}

// mediaBelow are the files of a library whose paths begin with a folder, by path.
func mediaBelow(
	ctx context.Context, conn grpc.ClientConnInterface, parent, folder string,
) (map[string]*topologyv1.MediaFile, error) {
	k, err := kindOf("media", "List")
	if err != nil {
		return nil, err
	}
	all, err := k.listAll(ctx, conn, fieldsOf{"parent": parent, "prefix": folder})
	if err != nil {
		return nil, err
	}
	files := make(map[string]*topologyv1.MediaFile)
	list := get(all, k.fields).List()
	for i := range list.Len() {
		f := list.Get(i).Message().Interface().(*topologyv1.MediaFile)
		files[f.GetId()] = f
	}
	return files, nil
}

// removeAll deletes files, several at once, and returns the names of those that it has deleted,
// also where it fails, and the revision of the last deletion. With ignoreMissing those that are not
// there are none too few.
func removeAll(
	ctx context.Context, conn grpc.ClientConnInterface, files []*topologyv1.MediaFile, ignoreMissing bool,
) (deleted []string, revision int64, err error) {
	revisions := make([]int64, len(files))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, f := range files {
		group.Go(func() error {
			response, err := adminv1.NewMediaServiceClient(conn).DeleteMediaFile(ctx,
				&adminv1.DeleteMediaFileRequest{Name: f.GetName(), Etag: f.GetEtag()})
			if err != nil && ignoreMissing && status.Code(err) == codes.NotFound {
				return nil
			}
			revisions[i] = response.GetRevision()
			return err
		})
	}
	err = group.Wait()
	for i, f := range files {
		if revisions[i] > 0 {
			deleted = append(deleted, f.GetName())
		}
	}
	return deleted, slices.Max(append(revisions, 0)), err
}

func (c *cli) copyCommand(move bool) *cobra.Command {
	name, verb, done := "cp", "Copy", "copied to"
	if move {
		name, verb, done = "mv", "Move", "moved to"
	}
	var wait waiting
	cmd := &cobra.Command{
		Use:   name + " PATH PATH",
		Short: verb + " a file, or a folder, within the library",
		Long: verb + ` a file of the library to another path, with its content type and tags. A path that ends with / is a folder: a file keeps its
name in it, and a folder is taken with all that is below it.`,
		Example: "  edgewalk media " + name + " /shop/a.jpg /archive/ -A acme\n  edgewalk media " + name +
			" /shop/ /old/shop/ -A acme --wait",
		Args: exactly(2, "two paths"),

		ValidArgsFunction: c.completeMedia(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			from, to := strings.TrimPrefix(args[0], "/"), strings.TrimPrefix(args[1], "/")
			folder := strings.HasSuffix(from, "/")
			if folder && to != "" && !strings.HasSuffix(to, "/") {
				return usagef("a folder goes to a folder: end the path with /, as in %s/", args[1])
			}
			if folder && strings.HasPrefix(to, from) {
				return usagef("%s lies within %s", args[1], args[0])
			}
			if folder {
				if err := c.writeSeveral(); err != nil {
					return err
				}
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				files, err := mediaBelow(ctx, conn, parent, from)
				if err != nil {
					return err
				}
				found, revision := false, int64(0)
				for _, id := range sortedKeys(files) {
					if !folder && id != from {
						continue
					}
					target := to + strings.TrimPrefix(id, from)
					if !folder {
						target = to
						if to == "" || strings.HasSuffix(to, "/") {
							target += path.Base(from)
						}
					}
					if target == id {
						return usagef("/%s is the same path", id)
					}
					response, err := transferFile(ctx, conn, files[id], target, move)
					if err != nil {
						return fmt.Errorf("%s: %w", files[id].GetName(), err)
					}
					revision = max(revision, response.GetRevision())
					found = true
					for _, warning := range response.GetWarnings() {
						fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+warning)
					}
					if err := c.print(cmd.OutOrStdout(), response, func() table {
						return table{rows: [][]string{{files[id].GetName() + " " + done + " /" + target}}}
					}); err != nil {
						return err
					}
				}
				if !found {
					return fmt.Errorf("the library has no /%s", from)
				}
				return c.waitFor(cmd, conn, revision, wait)
			})
		},
	}
	wait.addFlags(cmd)
	return cmd
}

// transferred is what answers that a file was copied or moved.
type transferred interface {
	proto.Message
	GetRevision() int64
	GetWarnings() []string
}

// transferFile copies or moves one file within the library.
func transferFile(
	ctx context.Context, conn *grpc.ClientConn, f *topologyv1.MediaFile, target string, move bool,
) (transferred, error) {
	media := adminv1.NewMediaServiceClient(conn)
	if move {
		return media.MoveMediaFile(ctx,
			&adminv1.MoveMediaFileRequest{Name: f.GetName(), Path: target, Etag: f.GetEtag()})
	}
	return media.CopyMediaFile(ctx, &adminv1.CopyMediaFileRequest{Name: f.GetName(), Path: target, Etag: f.GetEtag()})
}

func (c *cli) removeCommand() *cobra.Command {
	var wait waiting
	var recursive, ignoreMissing bool
	cmd := &cobra.Command{
		Use:   "rm PATH...",
		Short: "Remove files",
		Example: `  edgewalk media rm -A acme /shop/a.jpg /shop/b.jpg --wait
  edgewalk media rm -r -A acme /shop/`,
		Args:              between(1, math.MaxInt, "the paths of files"),
		ValidArgsFunction: c.completeMedia(math.MaxInt),
		RunE: func(cmd *cobra.Command, args []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			for _, arg := range args {
				if strings.HasSuffix(arg, "/") && !recursive {
					return usagef("%s is a folder: -r removes it with all that is below it", arg)
				}
			}
			if recursive || len(args) > 1 {
				if err := c.writeSeveral(); err != nil {
					return err
				}
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				var files []*topologyv1.MediaFile
				for _, arg := range args {
					id := strings.TrimPrefix(arg, "/")
					if !recursive {
						files = append(files, &topologyv1.MediaFile{Name: parent + "/mediaFiles/" + id})
						continue
					}
					below, err := mediaBelow(ctx, conn, parent, id)
					if err != nil {
						return err
					}
					found := false
					for _, other := range sortedKeys(below) {
						if other == id || strings.HasPrefix(other, strings.TrimSuffix(id, "/")+"/") || id == "" {
							files = append(files, below[other])
							found = true
						}
					}
					if !found && !ignoreMissing {
						return fmt.Errorf("the library has no /%s", id)
					}
				}
				revision, err := c.removeTold(ctx, cmd, conn, files, ignoreMissing, recursive)
				if err != nil {
					return err
				}
				return c.waitFor(cmd, conn, revision, wait)
			})
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "remove folders with all that is below them")
	cmd.Flags().BoolVar(&ignoreMissing, "ignore-missing", false, "files that are not there are no failure")
	wait.addFlags(cmd)
	return cmd
}

// removeTold removes files and prints each: one by one when they are named, several at once when
// they are many.
func (c *cli) removeTold(
	ctx context.Context, cmd *cobra.Command, conn grpc.ClientConnInterface, files []*topologyv1.MediaFile,
	ignoreMissing, many bool,
) (revision int64, err error) {
	deleted, at := []string{}, 1
	if many {
		at, ignoreMissing = max(1, len(files)), true
	}
	for part := range slices.Chunk(files, at) {
		gone, last, err := removeAll(ctx, conn, part, ignoreMissing)
		deleted, revision = append(deleted, gone...), max(revision, last)
		if err != nil {
			for _, name := range deleted {
				fmt.Fprintln(c.notes(cmd), name+" deleted")
			}
			return 0, err
		}
	}
	if !c.forPeople() {
		return revision,
			c.printPlain(cmd.OutOrStdout(), map[string]any{"deleted": deleted, "revision": fmt.Sprint(revision)},
				deleted)
	}
	for _, name := range deleted {
		fmt.Fprintln(cmd.OutOrStdout(), name+" deleted")
	}
	return revision, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
