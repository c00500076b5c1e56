package admincli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/manifest"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// change holds the flags of commands that write one resource.
type change struct {
	file       string
	set, unset []string
	etag       string
	dryRun     bool
	test       bool
	wait       waiting
}

func (ch *change) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&ch.file, "filename", "f", "", "file with the resource in YAML or JSON, or - for standard input")
	f.StringArrayVar(&ch.set, "set", nil, "a field and its value, such as web.baseUrl=http://127.0.0.1:9000 (repeatable)")
	f.BoolVar(&ch.dryRun, "dry-run", false, "only check")
	ch.wait.addFlags(cmd)
}

// parent returns the parent of resources of the kind, empty for those that have none.
func (c *cli) parent(k *kind) (string, error) {
	if !k.owned {
		return "", nil
	}
	return c.needAccount()
}

func (c *cli) createCommand() *cobra.Command {
	ch := &change{}
	cmd := &cobra.Command{
		Use:   "create KIND [ID] (-f FILE | --set FIELD=VALUE...)",
		Short: "Make an account, origin, URL-endpoint or custom domain",
		Long: `Make one resource. Its fields come from a file, which looks like an entry of a manifest or like what get -o yaml
shows, from --set, or both.

Fields are named as in a manifest (web.baseUrl) or as in the API (web.base_url). Lists take values separated by commas,
messages and maps JSON, durations 30s, 10m, 12h or 1d. edgewalk explain-field origin tells which fields there are.`,
		Example: `  edgewalk create account acme --set displayName="Acme Shop"
  edgewalk create origin legacy -A acme --set web.baseUrl=http://127.0.0.1:9000
  edgewalk create origin shots -A acme --set s3.bucket=shots --set s3.region=eu-central-1
  edgewalk create url-endpoint product-images -A acme --set origins=shots --set cache.defaultTtl=10m
  edgewalk create origin new -A acme --set web.baseUrl=https://files.example.com --test
  edgewalk create domain images.example.com -A acme --wait`,
		Args:              between(1, 2, "a kind and perhaps an id"),
		ValidArgsFunction: c.completeResources("Create"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := kindOf(args[0], "Create")
			if err != nil {
				return err
			}
			id := ""
			if len(args) == 2 {
				id = args[1]
			}
			return c.create(cmd, k, id, ch)
		},
	}
	ch.addFlags(cmd)
	c.completeSet(cmd, "set")
	cmd.Flags().BoolVar(&ch.test, "test", false, "let an edge ask the origin first, and make it only if a walk could use the answer")
	return cmd
}

func (c *cli) create(cmd *cobra.Command, k *kind, id string, ch *change) error {
	parent, err := c.parent(k)
	if err != nil {
		return err
	}
	resource, _, err := k.read(cmd.InOrStdin(), ch)
	if err != nil {
		return err
	}
	given := get(resource, "id").String()
	switch {
	case id == "":
		id = given
	case given != "" && given != id:
		return usagef("the file says id %q, the command %q", given, id)
	}
	if k.message == "CustomDomain" {
		domain := resource.Descriptor().Fields().ByName("domain")
		if resource.Get(domain).String() == "" {
			resource.Set(domain, protoreflect.ValueOfString(strings.Replace(id, "_wildcard.", "*.", 1)))
		}
		id = ""
	} else if id == "" {
		return usagef("say the id: edgewalk create %s ID", k.names[0])
	}
	resource.Clear(resource.Descriptor().Fields().ByName("id"))
	fields := fieldsOf{k.field: resource, k.field + "_id": id, "validate_only": ch.dryRun}
	if k.owned {
		fields["parent"] = parent
	}
	if err := ch.testable(k); err != nil {
		return err
	}
	return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
		if ch.test {
			if err := c.tryOrigin(ctx, cmd, conn, k.name(parent, id), resource); err != nil {
				return err
			}
		}
		response, err := k.call(ctx, conn, "Create", fields)
		if err != nil {
			return err
		}
		return c.changed(cmd, conn, k, "created", response, ch)
	})
}

// changed prints what a write returned and waits for edges if asked to.
func (c *cli) changed(
	cmd *cobra.Command, conn *grpc.ClientConn, k *kind, verb string, response protoreflect.Message, ch *change,
) error {
	if ch.dryRun {
		verb += " (dry run)"
	}
	if warnings := response.Descriptor().Fields().ByName("warnings"); warnings != nil {
		warn(cmd, response.Get(warnings).List())
	}
	err := c.print(cmd.OutOrStdout(), response.Interface(), func() table {
		name := get(get(response, k.field).Message(), "name").String()
		return table{rows: [][]string{{name + " " + verb}}}
	})
	if err != nil || ch.dryRun {
		return err
	}
	return c.waitFor(cmd, conn, get(response, "revision").Int(), ch.wait)
}

func warn(cmd *cobra.Command, warnings protoreflect.List) {
	for i := range warnings.Len() {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+warnings.Get(i).String())
	}
}

// read builds a resource from -f and --set, and returns the paths that --set and --unset name.
func (k *kind) read(stdin io.Reader, ch *change) (protoreflect.Message, []string, error) {
	resource, err := k.new()
	if err != nil {
		return nil, nil, err
	}
	if ch.file != "" {
		text, err := readFile(stdin, ch.file)
		if err != nil {
			return nil, nil, err
		}
		if resource, err = k.decode(string(text)); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", sourceName(ch.file), err)
		}
	}
	var paths []string
	chosen := make(map[protoreflect.OneofDescriptor]string)
	for _, assignment := range ch.set {
		path, value, ok := strings.Cut(assignment, "=")
		if !ok {
			return nil, nil, usagef("--set takes FIELD=VALUE, not %q", assignment)
		}
		full, err := setField(resource, path, value)
		if err != nil {
			return nil, nil, AsUsage(fmt.Errorf("--set %s: %w", path, err))
		}
		first, _, _ := strings.Cut(full, ".")
		field := resource.Descriptor().Fields().ByName(protoreflect.Name(first))
		if of := field.ContainingOneof(); of != nil && !of.IsSynthetic() {
			if other := chosen[of]; other != "" && other != field.JSONName() {
				return nil, nil, usagef("--set %s: %s and %s exclude each other: drop one of the two", path, other, field.JSONName())
			}
			chosen[of] = field.JSONName()
		}
		paths = append(paths, full)
	}
	for _, path := range ch.unset {
		full, err := unsetField(resource, path)
		if err != nil {
			return nil, nil, AsUsage(fmt.Errorf("--unset %s: %w", path, err))
		}
		paths = append(paths, full)
	}
	return resource, paths, nil
}

// decode reads a resource: as an entry of a manifest, or as get -o yaml shows it.
func (k *kind) decode(text string) (protoreflect.Message, error) {
	resource, err := k.new()
	if err != nil {
		return nil, err
	}
	if carrier := resource.Descriptor().Fields().ByName(protoreflect.Name(k.field)); carrier == nil &&
		topKeys(text)[fieldpath.JSON(k.field)] {
		response, err := newMessage("edgewalk.admin.v1.Get" + k.message + "Response")
		if err != nil {
			return nil, err
		}
		if _, err := manifest.DecodeMessage(text, response.Interface()); err != nil {
			return nil, err
		}
		return get(response, k.field).Message(), nil
	}
	_, err = manifest.DecodeMessage(text, resource.Interface())
	return resource, err
}

// sourceName is what errors call a file.
func sourceName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// readFile reads a file, or standard input for `-`.
func readFile(stdin io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}

func (c *cli) updateCommand() *cobra.Command {
	ch := &change{}
	cmd := &cobra.Command{
		Use:   "update KIND ID (-f FILE | --set FIELD=VALUE... | --unset FIELD...)",
		Short: "Change fields of a resource",
		Long: `Change one resource. With -f, the fields that the file holds are changed and the others stay; an etag in it, as get -o yaml
shows one, guards what others have changed since. With --set and --unset, the named fields are changed; --unset gives a field
its default back. Secrets that are not named are kept.`,
		Example: `  edgewalk update endpoint default -A acme --set origins=shots,legacy --wait
  edgewalk update endpoint default -A acme --set defaultImage.path=/placeholder.png --set cache.mode=OVERRIDE
  edgewalk update origin legacy -A acme --unset probeKey`,
		Args:              between(1, 2, "a kind and perhaps an id"),
		ValidArgsFunction: c.completeResources("Update"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := kindOf(args[0], "Update")
			if err != nil {
				return err
			}
			id := ""
			if len(args) == 2 {
				id = args[1]
			}
			return c.update(cmd, k, id, ch)
		},
	}
	ch.addFlags(cmd)
	cmd.Flags().StringArrayVar(&ch.unset, "unset", nil, "a field that gets its default back (repeatable)")
	cmd.Flags().StringVar(&ch.etag, "etag", "", "refuse unless the resource still has this etag")
	c.completeSet(cmd, "set", "unset")
	return cmd
}

func (c *cli) update(cmd *cobra.Command, k *kind, id string, ch *change) error {
	if ch.file == "" && len(ch.set) == 0 && len(ch.unset) == 0 {
		return usagef("nothing to change: use -f, --set or --unset")
	}
	resource, paths, err := k.read(cmd.InOrStdin(), ch)
	if err != nil {
		return err
	}
	if id == "" {
		id = get(resource, "id").String()
	}
	if id == "" && k.message == "CustomDomain" {
		id = get(resource, "domain").String()
	}
	if id == "" {
		return usagef("say the id: edgewalk update %s ID", k.names[0])
	}
	name, err := c.nameOf(k, id)
	if err != nil {
		return err
	}
	fields := resource.Descriptor().Fields()
	resource.Clear(fields.ByName("id"))
	resource.Set(fields.ByName("name"), protoreflect.ValueOfString(name))
	if ch.etag != "" {
		resource.Set(fields.ByName("etag"), protoreflect.ValueOfString(ch.etag))
	}
	request := fieldsOf{k.field: resource, "validate_only": ch.dryRun}
	if ch.file == "" {
		request["update_mask"] = (&fieldmaskpb.FieldMask{Paths: paths}).ProtoReflect()
	} else if len(ch.unset) > 0 {
		return usagef("--unset goes with --set, not with -f")
	}
	return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
		before := c.etagBefore(ctx, conn, k, resource)
		response, err := k.call(ctx, conn, "Update", request)
		if err != nil {
			return err
		}
		verb := "updated"
		if before != "" && before == get(get(response, k.field).Message(), "etag").String() && !ch.dryRun {
			verb = "unchanged"
		}
		return c.changed(cmd, conn, k, verb, response, ch)
	})
}

// etagBefore is the etag that a resource has before it is updated, which tells whether that changes
// anything: the one that guards the update, or what is there. It is empty where nobody asks for a
// word, and where the update may have happened before.
func (c *cli) etagBefore(
	ctx context.Context, conn *grpc.ClientConn, k *kind, resource protoreflect.Message,
) string {
	etag := get(resource, "etag").String()
	if etag != "" || !c.forPeople() || c.requestID != "" {
		return etag
	}
	response, err := k.call(ctx, conn, "Get", fieldsOf{"name": get(resource, "name").String()})
	if err != nil {
		return "" // The update says what is wrong.
	}
	return get(get(response, k.field).Message(), "etag").String()
}

func (c *cli) deleteCommand() *cobra.Command {
	ch := &change{}
	var force bool
	cmd := &cobra.Command{
		Use:   "delete KIND ID",
		Short: "Delete a resource",
		Example: `  edgewalk delete origin legacy -A acme
  edgewalk delete domain products.example.com -A acme --wait
  edgewalk delete account acme --force`,
		Args:              exactly(2, "a kind and an id"),
		ValidArgsFunction: c.completeResources("Delete"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, name, err := c.resourceOf(args, "Delete")
			if err != nil {
				return err
			}
			fields := fieldsOf{"name": name, "etag": ch.etag, "validate_only": ch.dryRun}
			if force {
				if k.message != "Account" {
					return usagef("--force is for accounts")
				}
				fields["force"] = true
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				response, err := k.call(ctx, conn, "Delete", fields)
				if err != nil {
					return err
				}
				verb := " deleted"
				if ch.dryRun {
					verb += " (dry run)"
				}
				err = c.print(cmd.OutOrStdout(), response.Interface(),
					func() table { return table{rows: [][]string{{name + verb}}} })
				if err != nil || ch.dryRun {
					return err
				}
				return c.waitFor(cmd, conn, get(response, "revision").Int(), ch.wait)
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "delete an account with everything it holds")
	cmd.Flags().StringVar(&ch.etag, "etag", "", "refuse unless the resource still has this etag")
	cmd.Flags().BoolVar(&ch.dryRun, "dry-run", false, "only check")
	ch.wait.addFlags(cmd)
	return cmd
}

func (c *cli) getCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "get KIND [ID]",
		Short: "Show one resource, or all of a kind",
		Long:  "Show one resource, or all of a kind. Kinds: account, origin, url-endpoint, custom-domain, media, purge, edge.",
		Example: `  edgewalk get accounts
  edgewalk get endpoints -A acme
  edgewalk get origin legacy -A acme -o yaml
  edgewalk get edges -w`,
		Args:              between(1, 2, "a kind and perhaps an id"),
		ValidArgsFunction: c.completeResources("Get"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := kindOf(args[0], "Get")
			if err != nil {
				return err
			}
			id := ""
			if len(args) == 2 {
				id = args[1]
			}
			return c.show(cmd, k, id, watch)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again whenever it has changed")
	return cmd
}

// show prints one resource or all of a kind, with watch again and again.
func (c *cli) show(cmd *cobra.Command, k *kind, id string, watch bool) error {
	verb, fields := "Get", fieldsOf{}
	switch {
	case id != "":
		name, err := c.nameOf(k, id)
		if err != nil {
			return err
		}
		fields["name"] = name
	case k.owned:
		parent, err := c.needAccount()
		if err != nil {
			return err
		}
		verb, fields["parent"] = "List", parent
	default:
		verb = "List"
	}
	read := func(ctx context.Context, conn *grpc.ClientConn) (protoreflect.Message, error) {
		if verb == "List" {
			return k.listAll(ctx, conn, maps.Clone(fields))
		}
		return k.call(ctx, conn, verb, fields)
	}
	return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
		var last protoreflect.Message
		for {
			response, err := read(ctx, conn)
			if err != nil {
				return err
			}
			if last == nil || !sameResources(last, response) {
				if last != nil {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				if err := c.print(
					cmd.OutOrStdout(), response.Interface(), func() table { return k.table(response) },
				); err != nil {
					return err
				}
				last = response
			}
			if !watch {
				return nil
			}
			if err := c.nextChange(ctx, conn, k, get(response, "revision").Int()); err != nil {
				return nil // The person ended the watch.
			}
		}
	})
}

// sameResources reports whether two responses differ at most in their revision.
func sameResources(a, b protoreflect.Message) bool {
	x, y := proto.Clone(a.Interface()).ProtoReflect(), proto.Clone(b.Interface()).ProtoReflect()
	for _, m := range []protoreflect.Message{x, y} {
		m.Clear(m.Descriptor().Fields().ByName("revision"))
	}
	return proto.Equal(x.Interface(), y.Interface())
}

// watchInterval is how often a watch asks whether there is something new. The API has no watch of
// its own; asking for the revision is one small read.
const watchInterval = time.Second

// nextChange returns when the topology is newer than revision; for edges and purges, whose state is
// no part of the topology, after one interval.
func (c *cli) nextChange(ctx context.Context, conn *grpc.ClientConn, k *kind, revision int64) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if k.message == "Edge" || k.message == "Purge" {
			return nil
		}
		now, err := adminv1.NewFleetServiceClient(conn).GetRevision(ctx, &adminv1.GetRevisionRequest{})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && now.GetRevision() > revision {
			return nil
		}
	}
}
