package admincli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/edgewalk/edgewalk/internal/manifest"
	"github.com/edgewalk/edgewalk/internal/topology"
)

func (c *cli) editCommand() *cobra.Command {
	ch := &change{}
	cmd := &cobra.Command{
		Use:   "edit KIND ID",
		Short: "Change a resource in your editor",
		Long: `Open a resource in the editor that VISUAL or EDITOR names (vi without them), and write what has become of it. A field that
is taken out gets its default back, secrets that are not given are kept, and what others have changed meanwhile is not
overwritten. A text that is refused is kept in a file. Leave the text as it is to change nothing.`,
		Example: `  edgewalk edit endpoint default -A acme
  edgewalk edit origin legacy -A acme --wait`,
		Args:              exactly(2, "a kind and an id"),
		ValidArgsFunction: c.completeResources("Update"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, name, err := c.resourceOf(args, "Update")
			if err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				return c.edit(ctx, cmd, conn, k, name, ch)
			})
		},
	}
	cmd.Flags().BoolVar(&ch.dryRun, "dry-run", false, "only check")
	ch.wait.addFlags(cmd)
	return cmd
}

func (c *cli) edit(
	ctx context.Context, cmd *cobra.Command, conn *grpc.ClientConn, k *kind, name string, ch *change,
) error {
	response, err := k.call(ctx, conn, "Get", fieldsOf{"name": name})
	if err != nil {
		return err
	}
	stored := get(response, k.field).Message()
	etag := get(stored, "etag").String()
	text, err := manifest.YAML(settable(stored).Interface())
	if err != nil {
		return err
	}
	text = append([]byte("# "+name+". Secrets are not shown; those that are not given stay.\n"), text...)
	folder, err := os.MkdirTemp("", "edgewalk-edit-")
	if err != nil {
		return err
	}
	file := filepath.Join(folder, k.names[0]+".yaml")
	edited, err := inEditor(ctx, cmd, file, text)
	if bytes.Equal(edited, text) || err != nil && len(edited) == 0 {
		os.RemoveAll(folder)
		if err == nil {
			fmt.Fprintln(c.notes(cmd), name+" unchanged")
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("%w\n  Your text is kept: %s", err, file)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt) // which inEditor has taken back
	defer stop()
	context.AfterFunc(ctx, stop)
	cmd.SetContext(ctx)
	next, err := k.decode(string(edited))
	if err == nil {
		fields := next.Descriptor().Fields()
		next.Set(fields.ByName("name"), protoreflect.ValueOfString(name))
		next.Set(fields.ByName("etag"), protoreflect.ValueOfString(etag))
		response, err = k.call(ctx, conn, "Update", fieldsOf{
			k.field: next, "update_mask": (&fieldmaskpb.FieldMask{Paths: []string{"*"}}).ProtoReflect(),
			"validate_only": ch.dryRun,
		})
	}
	if err != nil {
		err = c.explainError(err)
		return &apiError{fmt.Sprintf("%s\n  Your text is kept: %s", err, file), err}
	}
	os.RemoveAll(folder)
	return c.changed(cmd, conn, k, "updated", response, ch)
}

// settable is a copy of a resource with what can be written.
func settable(resource protoreflect.Message) protoreflect.Message {
	m := proto.Clone(resource.Interface()).ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if topology.OutputOnly(fields.Get(i).Name()) {
			m.Clear(fields.Get(i))
		}
	}
	return m
}

// editorGrace is how long an editor has to end when this command is to.
const editorGrace = 5 * time.Second

// inEditor returns what becomes of a text in the editor, also where that fails. Ctrl-C is the
// editor's alone: a terminal sends it to all programs that run in it, and in many editors it is a
// key like any other.
func inEditor(ctx context.Context, cmd *cobra.Command, file string, text []byte) ([]byte, error) {
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	words := strings.Fields(os.Getenv("VISUAL"))
	if len(words) == 0 {
		words = strings.Fields(cmp.Or(strings.TrimSpace(os.Getenv("EDITOR")), "vi"))
	}
	editor := exec.CommandContext(ctx, words[0], append(words[1:], file)...)
	editor.Stdin, editor.Stdout, editor.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	// One that is killed leaves the terminal as it has set it.
	editor.Cancel = func() error { return editor.Process.Signal(syscall.SIGTERM) }
	editor.WaitDelay = editorGrace
	passed := make(chan os.Signal, 1)
	signal.Ignore(os.Interrupt) // takes it from whoever else waits for it
	signal.Notify(passed, os.Interrupt)
	err := editor.Run()
	signal.Stop(passed)
	if err != nil {
		err = fmt.Errorf("run the editor %s: %w", words[0], err)
	}
	edited, readErr := os.ReadFile(file)
	return edited, cmp.Or(err, readErr)
}
