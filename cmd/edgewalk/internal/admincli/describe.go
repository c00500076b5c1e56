package admincli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/internal/duration"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func (c *cli) describeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe KIND ID",
		Short: "Show all of one resource, and who uses it",
		Long: `Show every field of one resource, uncut, and which resources of the account refer to it. Fields that are not shown have their
default, which edgewalk explain-field tells.`,
		Example: `  edgewalk describe origin legacy -A acme
  edgewalk describe edge fra-1`,
		Args:              exactly(2, "a kind and an id"),
		ValidArgsFunction: c.completeResources("Get"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, name, err := c.resourceOf(args, "Get")
			if err != nil {
				return err
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				response, err := k.call(ctx, conn, "Get", fieldsOf{"name": name})
				if err != nil {
					return err
				}
				if !c.forPeople() {
					return c.print(cmd.OutOrStdout(), response.Interface(), nil)
				}
				describe(cmd.OutOrStdout(), get(response, k.field).Message(), "")
				return describeUsers(ctx, cmd.OutOrStdout(), conn, k, name)
			})
		},
	}
}

// describe prints the fields of a message that are set.
func describe(w io.Writer, m protoreflect.Message, indent string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			continue
		}
		v := m.Get(f)
		switch {
		case f.IsMap():
			fmt.Fprintf(w, "%s%s:\n", indent, f.JSONName())
			var lines []string
			v.Map().Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
				lines = append(lines, fmt.Sprintf("%s  %s: %s", indent, key, plainValue(f.MapValue(), v)))
				return true
			})
			slices.Sort(lines)
			fmt.Fprintln(w, strings.Join(lines, "\n"))
		case f.IsList():
			fmt.Fprintf(w, "%s%s:\n", indent, f.JSONName())
			for j := range v.List().Len() {
				item := v.List().Get(j)
				if f.Message() == nil || wellKnown(f) {
					fmt.Fprintf(w, "%s  - %s\n", indent, plainValue(f, item))
					continue
				}
				fmt.Fprintf(w, "%s  -\n", indent)
				describe(w, item.Message(), indent+"    ")
			}
		case f.Message() != nil && !wellKnown(f):
			fmt.Fprintf(w, "%s%s:\n", indent, f.JSONName())
			describe(w, v.Message(), indent+"  ")
		default:
			fmt.Fprintf(w, "%s%s: %s\n", indent, f.JSONName(), plainValue(f, v))
		}
	}
}

// plainValue is a single value for people.
func plainValue(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch {
	case f.Enum() != nil:
		if value := f.Enum().Values().ByNumber(v.Enum()); value != nil {
			return string(value.Name())
		}
	case f.Message() != nil:
		switch m := v.Message().Interface().(type) {
		case *durationpb.Duration:
			return duration.String(m.AsDuration())
		case *timestamppb.Timestamp:
			return m.AsTime().Format("2006-01-02T15:04:05Z") + " (" + age(m) + " ago)"
		}
	}
	return strings.Map(printable, v.String())
}

// describeUsers says which resources of the account refer to one.
func describeUsers(ctx context.Context, w io.Writer, conn *grpc.ClientConn, k *kind, name string) error {
	parent, id, _ := strings.Cut(name, "/"+k.collection+"/")
	user := map[string]string{"Origin": "url-endpoint", "UrlEndpoint": "custom-domain"}[k.message]
	if user == "" {
		return nil
	}
	users, err := kindOf(user, "List")
	if err != nil {
		return err
	}
	all, err := users.listAll(ctx, conn, fieldsOf{"parent": parent})
	if err != nil {
		return err
	}
	var lines []string
	list := get(all, users.fields).List()
	for i := range list.Len() {
		switch u := list.Get(i).Message().Interface().(type) {
		case *topologyv1.UrlEndpoint:
			if slices.Contains(u.GetOrigins(), id) {
				lines = append(lines, "  - "+u.GetName())
			}
		case *topologyv1.CustomDomain:
			if u.GetUrlEndpoint() == id ||
				id == topology.DefaultEndpointID && u.GetMode() == topologyv1.CustomDomain_ACCOUNT {
				lines = append(lines, "  - "+u.GetName())
			}
		}
	}
	if lines == nil {
		lines = []string{"  nobody"}
	}
	fmt.Fprintf(w, "usedBy:\n%s\n", strings.Join(lines, "\n"))
	return nil
}
