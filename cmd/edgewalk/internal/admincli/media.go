package admincli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// uploadPart is how many bytes a message of an upload carries: well below gRPC's limit of 4 MiB a
// message.
const uploadPart = 256 << 10

func (c *cli) mediaCommand(local Local) *cobra.Command {
	for _, copies := range []*cobra.Command{local.BackupMedia, local.RestoreMedia} {
		copies.Args = exactly(1, "the name of a folder")
	}
	return group(&cobra.Command{
		Use:   "media",
		Short: "Manage the files of an account's Media Library",
		Example: `  edgewalk media upload -A acme a.jpg b.jpg /shop/
  edgewalk media ls -A acme /shop/
  edgewalk media get -A acme /shop/a.jpg
  edgewalk media sync shots/ /shop/ -A acme --delete
  edgewalk media rm -A acme /shop/a.jpg --wait`,
	}, c.uploadCommand(), c.syncCommand(), c.mediaListCommand(), c.downloadCommand(), c.copyCommand(false),
		c.copyCommand(true), c.removeCommand(),
		local.BackupMedia, local.RestoreMedia)
}

func (c *cli) uploadCommand() *cobra.Command {
	var contentType string
	var tags []string
	var createOnly, recursive bool
	var wait waiting
	cmd := &cobra.Command{
		Use:   "upload FILE... PATH",
		Short: "Store files in the Media Library",
		Long:  "Store files in the Media Library. The last argument is the path under which the file answers; with a / at its end it is a folder, and files keep their names.",
		Example: `  edgewalk media upload -A acme placeholder.png /placeholder.png
  edgewalk media upload -A acme shots/*.jpg /shop/ --tag spring --wait
  edgewalk media upload -r shots/ /shop/ -A acme`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("say which files, and under which path: edgewalk media upload FILE... PATH")
			}
			if recursive && !strings.HasSuffix(args[len(args)-1], "/") {
				return usagef("-r needs a folder: end the path with /, as in %s/", args[len(args)-1])
			}
			if len(args) > 2 && !strings.HasSuffix(args[len(args)-1], "/") {
				return usagef("several files need a folder: end the path with /, as in %s/", args[len(args)-1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			files, err := transfers(args[:len(args)-1], args[len(args)-1], recursive)
			if err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				what := files[0].local
				if len(files) > 1 {
					what = Counted(len(files), "file")
				}
				responses, failed := uploadAll(ctx, conn, files,
					func(file transfer) *adminv1.UploadMediaFileRequest_Start {
						return &adminv1.UploadMediaFileRequest_Start{
							Parent: parent, Path: file.remote, CreateOnly: createOnly,
							MediaFile: &topologyv1.MediaFile{ContentType: contentType, Tags: tags},
						}
					}, NewProgress(cmd.ErrOrStderr(), what))
				var revision int64
				for _, response := range responses {
					if response == nil {
						continue
					}
					revision = max(revision, response.GetRevision())
					for _, warning := range response.GetWarnings() {
						fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+warning)
					}
					err := c.print(cmd.OutOrStdout(), response, func() table {
						f := response.GetMediaFile()
						return table{rows: [][]string{{fmt.Sprintf("%s %s (%s, %s)", f.GetName(), storedWord(response),
							ByteSize(f.GetSizeBytes()), f.GetContentType())}}}
					})
					if err != nil {
						return err
					}
				}
				if failed != nil {
					return failed
				}
				return c.waitFor(cmd, conn, revision, wait)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&contentType, "content-type", "", "what the files are (default: by extension, else by their first bytes)")
	f.StringSliceVar(&tags, "tag", nil, "a cache tag, for purges (repeatable)")
	f.BoolVarP(&recursive, "recursive", "r", false, "upload folders with all that is below them")
	f.BoolVar(&createOnly, "create-only", false, "refuse to replace a file")
	wait.addFlags(cmd)
	return cmd
}

// remotePath returns where file goes: under target when that is a folder.
func remotePath(file, target string) string {
	if strings.HasSuffix(target, "/") {
		return target + filepath.Base(file)
	}
	return target
}

// upload sends one file in parts.
func upload(
	ctx context.Context, conn grpc.ClientConnInterface, file string, start *adminv1.UploadMediaFileRequest_Start,
	p *Progress,
) (*adminv1.UploadMediaFileResponse, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("it is a folder: -r uploads what is below it")
	}
	if info.Mode().IsRegular() {
		size := info.Size()
		start.SizeBytes = &size
		p.Expect(size)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // Ends the stream when the file cannot be read to its end.
	stream, err := adminv1.NewMediaServiceClient(conn).UploadMediaFile(ctx)
	if err != nil {
		return nil, err
	}
	request := &adminv1.UploadMediaFileRequest{Part: &adminv1.UploadMediaFileRequest_Start_{Start: start}}
	buffer := make([]byte, uploadPart)
	for {
		if err := stream.Send(request); err == io.EOF {
			break // The server has given up; its answer says why.
		} else if err != nil {
			return nil, err
		}
		n, err := io.ReadFull(f, buffer)
		if n > 0 {
			p.Add(int64(n))
			request = &adminv1.UploadMediaFileRequest{Part: &adminv1.UploadMediaFileRequest_Data{Data: buffer[:n]}}
			continue
		}
		if err != io.EOF {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		break
	}
	return stream.CloseAndRecv()
}

func (c *cli) mediaListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ls [PREFIX]",
		Short:   "List files",
		Example: "  edgewalk media ls -A acme /shop/",
		Args:    between(0, 1, "at most a folder"),

		ValidArgsFunction: c.completeMedia(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			k, err := kindOf("media", "List")
			if err != nil {
				return err
			}
			fields := fieldsOf{"parent": parent}
			if len(args) == 1 {
				fields["prefix"] = strings.TrimPrefix(args[0], "/")
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				response, err := k.listAll(ctx, conn, fields)
				if err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), response.Interface(), func() table { return k.table(response) })
			})
		},
	}
}

func (c *cli) downloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get PATH [FILE]",
		Short: "Copy a file out of the Media Library",
		Long: `Copy a file out of the Media Library, to FILE, to a file of its own name here or in the folder FILE, or with - to standard output. A file that is there is
replaced once all bytes have arrived.`,
		Example: `  edgewalk media get -A acme /shop/a.jpg
  edgewalk media get -A acme /notes.txt -`,
		Args: between(1, 2, "a path and where to put the file"),

		ValidArgsFunction: func(
			cmd *cobra.Command, args []string, typed string,
		) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return c.completeMedia(1)(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			parent, err := c.needAccount()
			if err != nil {
				return err
			}
			target := path.Base(args[0])
			if len(args) == 2 {
				target = localPath(args[0], args[1])
			}
			name := parent + "/mediaFiles/" + strings.TrimPrefix(args[0], "/")
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				if target == "-" {
					_, err := download(ctx, conn, name, cmd.OutOrStdout(), NewProgress(io.Discard, name))
					return err
				}
				n, err := downloadFile(ctx, conn, name, target, NewProgress(cmd.ErrOrStderr(), target))
				if err != nil {
					return err
				}
				if !c.forPeople() {
					return c.printPlain(cmd.OutOrStdout(), map[string]any{"file": target, "sizeBytes": n},
						[]string{target})
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s (%s)\n", target, ByteSize(n))
				return nil
			})
		},
	}
}

// localPath returns where the file of a library path goes: into target when that is a folder.
func localPath(file, target string) string {
	if info, err := os.Stat(target); strings.HasSuffix(target, "/") || err == nil && info.IsDir() {
		return filepath.Join(target, path.Base(file))
	}
	return target
}

// downloadFile writes a file of the library to one here.
func downloadFile(
	ctx context.Context, conn *grpc.ClientConn, name, target string, p *Progress,
) (n int64, err error) {
	err = replaceFile(target, 0o644, func(w io.Writer) error {
		n, err = download(ctx, conn, name, w, p)
		return err
	})
	return n, err
}

// replaceFile has write write a file that gets its name once it is whole, so that one that breaks
// off leaves what was there. Behind a link, that is what the link leads to. What is no file, such
// as a pipe or /dev/null, stays what it is, and is written to.
func replaceFile(target string, mode fs.FileMode, write func(io.Writer) error) error {
	switch info, err := os.Stat(target); {
	case err != nil:
		if to, err := os.Readlink(target); err == nil {
			return fmt.Errorf("write %s: it is a link to %s, which is not there", target, to)
		} // else there is nothing yet
	case info.IsDir():
		return fmt.Errorf("write %s: it is a folder", target)
	case !info.Mode().IsRegular():
		f, err := os.OpenFile(target, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	default:
		if target, err = filepath.EvalSymlinks(target); err != nil {
			return err
		}
	}
	tmp, err := os.CreateTemp(filepath.Dir(target), ".edgewalk-*") // with mode 0600
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("write %s: %w", target, failed.Err) // Its path is one that nobody typed.
	} else if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // not there once it has its name
	err = write(tmp)
	if err == nil {
		err = errors.Join(tmp.Chmod(mode), tmp.Sync())
	}
	if closed := tmp.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), target)
}

// download copies a file's bytes to w and checks that all have arrived.
func download(ctx context.Context, conn *grpc.ClientConn, name string, w io.Writer, p *Progress) (int64, error) {
	stream, err := adminv1.NewMediaServiceClient(conn).DownloadMediaFile(ctx,
		&adminv1.DownloadMediaFileRequest{Name: name})
	if err != nil {
		return 0, err
	}
	var n int64
	for {
		part, err := stream.Recv()
		if err == io.EOF {
			p.Done()
			if n != p.total {
				return n, fmt.Errorf("the download ended after %d of %d bytes", n, p.total)
			}
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if f := part.GetMediaFile(); f != nil {
			p.total = f.GetSizeBytes()
		}
		m, err := w.Write(part.GetData())
		n += int64(m)
		if err != nil {
			return n, err
		}
		p.Add(int64(m))
	}
}
