package admincli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// completeTimeout bounds how long a shell waits for names of resources.
const completeTimeout = 2 * time.Second

// completeFlags completes the values of the shared flags.
func (c *cli) completeFlags(root *cobra.Command) {
	for flag, complete := range map[string]cobra.CompletionFunc{
		"output": cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp),
		"account": func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return c.ids(cmd.Context(), "account"), cobra.ShellCompDirectiveNoFileComp
		},
	} {
		if err := root.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic(err) // Only for a flag that does not exist.
		}
	}
}

// completeResources completes a kind that can do verb, then the id of a resource. New resources
// have no id yet.
func (c *cli) completeResources(verb string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			var words []cobra.Completion
			for _, k := range kinds {
				if strings.Contains(k.verbs, verb) {
					words = append(words, k.names[0])
				}
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		case len(args) == 1 && verb != "Create":
			return c.ids(cmd.Context(), args[0]), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeIDs completes the id of a resource of one kind.
func (c *cli) completeIDs(kind string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.ids(cmd.Context(), kind), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeMedia completes the path of a file of the library, folder by folder.
func (c *cli) completeMedia(most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		parent, err := c.needAccount()
		if err != nil || len(args) >= most {
			return nil, directive
		}
		conn, err := c.dial(cmd.Context())
		if err != nil {
			return nil, directive
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		prefix := strings.TrimPrefix(typed, "/")
		folder := prefix[:strings.LastIndexByte(prefix, '/')+1]
		request := &adminv1.ListMediaFilesRequest{Parent: parent, Prefix: folder, FolderOnly: true, PageSize: 1000}
		var paths []cobra.Completion
		for {
			page, err := adminv1.NewMediaServiceClient(conn).ListMediaFiles(ctx, request)
			if err != nil {
				return paths, directive // what has come in time
			}
			names := page.GetFolders()
			for _, f := range page.GetMediaFiles() {
				names = append(names, f.GetId())
			}
			for _, name := range names {
				if strings.HasPrefix(name, prefix) {
					paths = append(paths, "/"+name)
				}
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return paths, directive
			}
		}
	}
}

// completeFlag completes a flag that takes the id of a resource of a kind.
func (c *cli) completeFlag(cmd *cobra.Command, flag, kind string) {
	if err := cmd.RegisterFlagCompletionFunc(flag,
		func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return c.ids(cmd.Context(), kind), cobra.ShellCompDirectiveNoFileComp
		}); err != nil {
		panic(err) // Only for a flag that does not exist.
	}
}

// completeSet completes the fields that --set and --unset take.
func (c *cli) completeSet(cmd *cobra.Command, flags ...string) {
	for _, flag := range flags {
		if err := cmd.RegisterFlagCompletionFunc(flag,
			func(_ *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
				if len(args) == 0 || strings.Contains(typed, "=") {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				k, err := kindOf(args[0], "Update")
				if err != nil {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				resource, err := k.new()
				if err != nil {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return fieldsBelow(resource.Descriptor(), typed, flag == "set"),
					cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
			}); err != nil {
			panic(err) // Only for a flag that does not exist.
		}
	}
}

// fieldsBelow are the fields that a path which is being typed can go on with.
func fieldsBelow(d protoreflect.MessageDescriptor, typed string, assign bool) (paths []cobra.Completion) {
	prefix := ""
	for {
		part, rest, more := strings.Cut(strings.TrimPrefix(typed, prefix), ".")
		f := d.Fields().ByJSONName(part)
		if !more || f == nil || f.Message() == nil || f.IsList() || f.IsMap() || wellKnown(f) {
			break
		}
		prefix, d = typed[:len(typed)-len(rest)], f.Message()
	}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if prefix == "" && topology.OutputOnly(f.Name()) {
			continue
		}
		path := prefix + f.JSONName()
		switch {
		case f.Message() != nil && !f.IsList() && !f.IsMap() && !wellKnown(f):
			path += "."
		case assign:
			path += "="
		}
		paths = append(paths, path)
	}
	return paths
}

// ids are the ids of a kind; a shell has no use for an error.
func (c *cli) ids(ctx context.Context, word string) []cobra.Completion {
	k, err := kindOf(word, "List")
	if err != nil {
		return nil
	}
	parent, err := c.parent(k)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return nil
	}
	defer conn.Close()
	fields := fieldsOf{}
	if k.owned {
		fields["parent"] = parent
	}
	all, err := k.listAll(ctx, conn, fields)
	if err != nil {
		return nil
	}
	var ids []cobra.Completion
	list := get(all, k.fields).List()
	for i := range list.Len() {
		ids = append(ids, get(list.Get(i).Message(), "id").String())
	}
	slices.Sort(ids)
	return ids
}
