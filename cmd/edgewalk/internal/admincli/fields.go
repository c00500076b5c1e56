package admincli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/edgewalk/edgewalk/internal/fielddoc"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// typeWord is what a field takes.
func typeWord(f protoreflect.FieldDescriptor) string {
	one := f.Kind().String()
	switch {
	case f.IsMap():
		return "map of " + typeWord(f.MapValue())
	case f.Enum() != nil:
		var values []string
		for i := 1; i < f.Enum().Values().Len(); i++ {
			values = append(values, string(f.Enum().Values().Get(i).Name()))
		}
		one = strings.Join(values, ", ")
	case f.Message() != nil && wellKnown(f):
		one = strings.ToLower(string(f.Message().Name()))
	case f.Message() != nil:
		one = "fields"
	case f.Kind() == protoreflect.StringKind:
		one = "text"
	case f.Kind() == protoreflect.BoolKind:
		one = "true or false"
	case f.Kind() == protoreflect.Int32Kind, f.Kind() == protoreflect.Int64Kind, f.Kind() == protoreflect.DoubleKind:
		one = "number"
	}
	if f.IsList() {
		return "list of " + one
	}
	return one
}

// hasFields reports whether a field has fields of its own to name.
func hasFields(f protoreflect.FieldDescriptor) bool {
	return f.Message() != nil && !f.IsMap() && !wellKnown(f)
}

func (c *cli) explainFieldCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain-field KIND[.FIELD]",
		Short: "Tell what a field means: its form, unit and default",
		Long:  "Tell what a kind of resource is, or what one of its fields means: its form, unit, default and limits. It asks nobody.",
		Example: `  edgewalk explain-field origin
  edgewalk explain-field origin.s3.region
  edgewalk explain-field endpoint.cache`,
		Args:              exactly(1, "a kind, or a field of it such as origin.s3.region"),
		ValidArgsFunction: completeField,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !c.forPeople() {
				return usagef("explain-field prints text for people, which --output %q is not: leave it out", c.output)
			}
			word, path, _ := strings.Cut(args[0], ".")
			k, err := kindOf(word, "Get")
			if err != nil {
				return err
			}
			file, err := fielddoc.File(cmd.Context())
			if err != nil {
				return err
			}
			m := file.Messages().ByName(protoreflect.Name(k.message))
			var d protoreflect.Descriptor = m
			at := k.names[0]
			for part := range strings.SplitSeq(path, ".") {
				if path == "" {
					break
				}
				if m == nil {
					return usagef("%s has no fields of its own", at)
				}
				f := m.Fields().ByJSONName(part)
				if f == nil {
					f = m.Fields().ByName(protoreflect.Name(part))
				}
				if f == nil {
					names := messageFields(m)
					hint := fieldpath.Hint(part, names...)
					if hint == "" {
						hint = "; it has " + strings.Join(names, ", ")
					}
					return usagef("%s has no field %q%s", at, part, hint)
				}
				d, m = f, nil
				at += "." + f.JSONName()
				if hasFields(f) {
					m = f.Message()
				}
			}
			return writeField(cmd.OutOrStdout(), at, d, m)
		},
	}
}

func messageFields(m protoreflect.MessageDescriptor) (names []string) {
	for i := range m.Fields().Len() {
		names = append(names, m.Fields().Get(i).JSONName())
	}
	return names
}

// writeField describes a field or message, and the fields in it.
func writeField(w io.Writer, at string, d protoreflect.Descriptor, m protoreflect.MessageDescriptor) error {
	head := at
	if f, ok := d.(protoreflect.FieldDescriptor); ok {
		head += " (" + typeWord(f) + ")"
	}
	fmt.Fprintf(w, "%s\n\n%s\n", head, folded(fielddoc.Comment(d), "  "))
	if f, ok := d.(protoreflect.FieldDescriptor); ok {
		writeChoices(w, f, "  ")
	}
	if m == nil {
		return nil
	}
	fmt.Fprintln(w, "\nFields:")
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		fmt.Fprintf(w, "  %s (%s)\n%s\n", f.JSONName(), typeWord(f), folded(fielddoc.Comment(f), "      "))
		writeChoices(w, f, "      ")
	}
	return nil
}

// writeChoices tells what each choice of a field does, a line for each.
func writeChoices(w io.Writer, f protoreflect.FieldDescriptor, indent string) {
	for _, choice := range fielddoc.Choices(f) {
		text := folded(choice.Name+": "+choice.Meaning, indent+"  ")
		fmt.Fprintf(w, "%s- %s\n", indent, strings.TrimLeft(text, " "))
	}
}

// folded breaks a text into lines that fit a screen.
func folded(text, indent string) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0, column+1+n > screen:
			if i > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

// completeField completes a kind, then the fields of it.
func completeField(_ *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	if len(args) > 0 {
		return nil, directive
	}
	word, path, dot := strings.Cut(typed, ".")
	var words []cobra.Completion
	if !dot {
		for _, k := range kinds {
			words = append(words, k.names[0])
		}
		return words, directive
	}
	k, err := kindOf(word, "Get")
	if err != nil {
		return nil, directive
	}
	resource, err := k.new()
	if err != nil {
		return nil, directive
	}
	for _, field := range fieldsBelow(resource.Descriptor(), path, false) {
		words = append(words, word+"."+field)
	}
	return words, directive
}

// referenceCommand is for the documentation: it writes docs/reference.md.
func (c *cli) referenceCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "reference",
		Short:   "Write the reference of all fields",
		Long:    "Write a page in Markdown with every field of every kind of resource, as explain-field tells them.",
		Example: "  edgewalk reference > docs/reference.md",
		Hidden:  true,
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := fielddoc.File(cmd.Context())
			if err != nil {
				return err
			}
			return writeReference(cmd.OutOrStdout(), file)
		},
	}
}

func writeReference(w io.Writer, file protoreflect.FileDescriptor) error {
	var b strings.Builder
	b.WriteString(`# Reference of fields

Every field of every kind of resource, by the names that manifests, ` + "`--set`" + ` and the output have. ` +
		"`edgewalk explain-field origin.s3.region`" + ` tells the same.
Flags are in ` + "`--help`" + ` of each command and in the manual pages. This page is made by ` + "`make generate`" + ` from the comments of
` + "`proto/edgewalk/topology/v1/topology.proto`" + `: change it there.
`)
	for _, k := range kinds {
		m := file.Messages().ByName(protoreflect.Name(k.message))
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| field | takes | meaning |\n|---|---|---|\n", k.names[0], fielddoc.Comment(m))
		referenceRows(&b, m, "", map[protoreflect.FullName]bool{})
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func referenceRows(
	b *strings.Builder, m protoreflect.MessageDescriptor, prefix string, above map[protoreflect.FullName]bool,
) {
	if above[m.FullName()] {
		return
	}
	above[m.FullName()] = true
	defer delete(above, m.FullName())
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		path := prefix + f.JSONName()
		takes := typeWord(f)
		if prefix == "" && topology.OutputOnly(f.Name()) && !strings.Contains(fielddoc.Comment(f), "Output only") {
			takes += "; output only"
		}
		meaning := fielddoc.Comment(f)
		for _, choice := range fielddoc.Choices(f) {
			meaning += fmt.Sprintf("<br>`%s`: %s", choice.Name, choice.Meaning)
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", path, takes, strings.ReplaceAll(meaning, "|", `\|`))
		if hasFields(f) {
			if f.IsList() {
				path += "[]"
			}
			referenceRows(b, f.Message(), path+".", above)
		}
	}
}
