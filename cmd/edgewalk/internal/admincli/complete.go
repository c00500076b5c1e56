package admincli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completeTimeout bounds how long a shell waits for names of resources.
const completeTimeout = 2 * time.Second

// completeFlags completes the values of the shared flags.
func (c *cli) completeFlags(root *cobra.Command) {
	for flag, complete := range map[string]cobra.CompletionFunc{
		"output": cobra.FixedCompletions([]cobra.Completion{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp),
		"account": func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return c.ids(cmd.Context(), "account"), cobra.ShellCompDirectiveNoFileComp
		},
	} {
		if err := root.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic(err) // Only for a flag that does not exist.
		}
	}
}

// completeResources completes a kind that can do verb, then the id of a resource. New resources have no id yet.
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

// ids are the ids of a kind, as far as the control plane tells them at once; a shell has no use for an error.
func (c *cli) ids(ctx context.Context, word string) []cobra.Completion {
	k, err := kindOf(word, "List")
	if err != nil {
		return nil
	}
	parent, err := c.parent(k)
	if err != nil {
		return nil
	}
	conn, err := c.dial()
	if err != nil {
		return nil
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	fields := fieldsOf{"page_size": int32(1000)}
	if k.owned {
		fields["parent"] = parent
	}
	page, err := k.call(ctx, conn, "List", fields)
	if err != nil {
		return nil
	}
	var ids []cobra.Completion
	list := get(page, k.fields).List()
	for i := range list.Len() {
		ids = append(ids, get(list.Get(i).Message(), "id").String())
	}
	slices.Sort(ids)
	return ids
}
