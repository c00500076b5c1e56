package admincli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/client-go/util/jsonpath"

	"github.com/edgewalk/edgewalk/internal/manifest"
)

// table is what is printed for people.
type table struct {
	// head are the titles. A column whose title begins with "+" is for -o wide, one with "~" is cut
	// before others are.
	head []string
	rows [][]string
	// whole says that no cell is cut, as of a single resource.
	whole bool
	// below are lines after the table.
	below []string
}

const (
	// screen is how many columns a table has at most, unless the terminal is wider or -o wide asks
	// for all.
	screen = 80
	// gap is the space between columns.
	gap = 2
	// narrowest is how narrow a column is made at most.
	narrowest = 10
)

// formats are what --output takes.
var formats = []cobra.Completion{"table", "wide", "name", "json", "yaml", "jsonpath="}

// print writes the message as --output asks; tab makes the table only when it is wanted.
func (c *cli) print(w io.Writer, message proto.Message, tab func() table) error {
	c.documents++
	path, isPath := strings.CutPrefix(c.output, "jsonpath=")
	switch {
	case c.output == "json":
		text, err := indented(message)
		if err != nil {
			return err
		}
		_, err = text.WriteTo(w)
		return err
	case c.output == "yaml":
		text, err := manifest.YAML(message)
		if err != nil {
			return err
		}
		if c.documents > 1 {
			text = append([]byte("---\n"), text...)
		}
		_, err = w.Write(text)
		return err
	case c.output == "name":
		if names := resourceNames(message.ProtoReflect()); len(names) > 0 {
			_, err := fmt.Fprintln(w, strings.Join(names, "\n"))
			return err
		}
		return nil
	case isPath:
		return writePath(w, message, path)
	default:
		return tab().write(w, c.output == "wide")
	}
}

// printPlain writes what is no message as --output asks for programs; names are what -o name
// prints.
func (c *cli) printPlain(w io.Writer, value any, names []string) error {
	switch path, isPath := strings.CutPrefix(c.output, "jsonpath="); {
	case c.output == "name":
		if len(names) == 0 {
			return nil
		}
		_, err := fmt.Fprintln(w, strings.Join(names, "\n"))
		return err
	case c.output == "yaml":
		text, err := yaml.Marshal(plain(value))
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	case isPath:
		p := newPath()
		if err := p.Parse(template(path)); err != nil {
			return usagef("--output jsonpath=%s: %v", path, err)
		}
		if err := p.Execute(w, plain(value)); err != nil {
			return fmt.Errorf("--output jsonpath=%s: %w", path, err)
		}
		_, err := fmt.Fprintln(w)
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}

// plain is a value by its JSON names.
func plain(value any) (out any) {
	text, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		panic(err) // Only for a type that has no JSON.
	}
	return out
}

// indented is a message in JSON. Protojson's own spaces differ from build to build.
func indented(message proto.Message) (*bytes.Buffer, error) {
	text, err := protojson.Marshal(message)
	if err != nil {
		return nil, err
	}
	out := new(bytes.Buffer)
	if err := json.Indent(out, text, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out, nil
}

// forPeople reports whether --output asks for what people read.
func (c *cli) forPeople() bool { return c.output == "table" || c.output == "wide" }

// checkOutput refuses an --output that is none, before anything is done.
func (c *cli) checkOutput() error {
	if path, ok := strings.CutPrefix(c.output, "jsonpath="); ok {
		if err := newPath().Parse(template(path)); err != nil {
			return usagef("--output jsonpath=%s: %v; it is written like {.web.baseUrl}", path, err)
		}
		return nil
	}
	if slices.Contains([]string{"table", "wide", "name", "json", "yaml"}, c.output) {
		return nil
	}
	return usagef("--output is table, wide, name, json, yaml or jsonpath={...}, not %q", c.output)
}

func newPath() *jsonpath.JSONPath { return jsonpath.New("output").AllowMissingKeys(true) }

// template is a path in braces, which people leave out.
func template(path string) string {
	if strings.Contains(path, "{") {
		return path
	}
	return "{" + path + "}"
}

// writePath writes what a JSONPath template finds
// (https://kubernetes.io/docs/reference/kubectl/jsonpath/) in a response, or in the one resource
// that it carries.
func writePath(w io.Writer, message proto.Message, path string) error {
	text, err := protojson.Marshal(message)
	if err != nil {
		return err
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	p := newPath()
	if err := p.Parse(template(path)); err != nil {
		return usagef("--output jsonpath=%s: %v", path, err)
	}
	var out bytes.Buffer
	if err := p.Execute(&out, value); err != nil {
		return fmt.Errorf("--output jsonpath=%s: %w", path, err)
	}
	if field, _ := carried(message.ProtoReflect()); out.Len() == 0 && field != nil {
		if inner, ok := value.(map[string]any); ok {
			if err := p.Execute(&out, inner[field.JSONName()]); err != nil {
				return fmt.Errorf("--output jsonpath=%s: %w", path, err)
			}
		}
	}
	out.WriteByte('\n')
	_, err = out.WriteTo(w)
	return err
}

// carried is the one resource in a response, with its field, which is nil if there is none.
func carried(response protoreflect.Message) (protoreflect.FieldDescriptor, protoreflect.Message) {
	fields := response.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Message() != nil && !f.IsList() && !f.IsMap() && f.Message().Fields().ByName("name") != nil &&
			response.Has(f) {
			return f, response.Get(f).Message()
		}
	}
	return nil, nil
}

// resourceNames are the names of the resources in a response.
func resourceNames(response protoreflect.Message) (names []string) {
	if field, one := carried(response); field != nil {
		return []string{get(one, "name").String()}
	}
	fields := response.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !f.IsList() || f.Message() == nil || f.Message().Fields().ByName("name") == nil {
			continue
		}
		list := response.Get(f).List()
		for j := range list.Len() {
			names = append(names, get(list.Get(j).Message(), "name").String())
		}
	}
	return names
}

// write prints the table: all of it, or as much as fits a screen.
func (t table) write(w io.Writer, wide bool) error {
	var head []string
	var soft []bool // columns to cut first
	var rows [][]string
	kept := func(i int) bool { return wide || i >= len(t.head) || !strings.HasPrefix(t.head[i], "+") }
	for i, title := range t.head {
		if kept(i) {
			head = append(head, strings.TrimLeft(title, "+~"))
			soft = append(soft, strings.HasPrefix(title, "~"))
		}
	}
	for _, row := range t.rows {
		var cells []string
		for i, cell := range row {
			if !kept(i) {
				continue
			}
			if cell == "" {
				cell = "-"
			}
			cells = append(cells, strings.Map(printable, cell))
		}
		rows = append(rows, cells)
	}
	if head != nil {
		rows = append([][]string{head}, rows...)
	}
	widths := widthsOf(rows)
	if !wide && !t.whole && head != nil {
		fit := max(screen, terminalWidth(w))
		narrow(widths, fit, func(i int) bool { return soft[i] })
		narrow(widths, fit, func(int) bool { return true })
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			cell = cut(cell, widths[i])
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-runewidth.StringWidth(cell)+gap))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	for _, line := range t.below {
		b.WriteString(strings.Map(printable, line) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func widthsOf(rows [][]string) (widths []int) {
	for _, row := range rows {
		for i, cell := range row {
			n := runewidth.StringWidth(cell)
			if i == len(row)-1 && len(row) == 1 {
				n = 0 // A line of its own is as long as it is.
			}
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], n)
		}
	}
	if len(widths) == 1 {
		widths[0] = 1 << 20
	}
	return widths
}

// narrow makes the widest of some columns narrower until all columns fit. The first one, which
// names what a line is about, stays.
func narrow(widths []int, fit int, some func(int) bool) {
	total := gap * (len(widths) - 1)
	for _, n := range widths {
		total += n
	}
	for ; total > fit; total-- {
		widest := 0
		for i := 1; i < len(widths); i++ {
			if some(i) && (widest == 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest == 0 || widths[widest] <= narrowest {
			return
		}
		widths[widest]--
	}
}

// cut shortens a cell to a width, with a sign that it is not whole.
func cut(cell string, width int) string { return runewidth.Truncate(cell, width, "…") }

// terminalWidth is 0 where there is no terminal.
func terminalWidth(w io.Writer) int {
	f, ok := w.(interface{ Fd() uintptr })
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// printable keeps what others wrote into names and notes from moving the cursor or the columns.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
		return ' '
	}
	return r
}

// age says how long ago t was, as short as a person needs it.
func age(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return span(time.Since(t.AsTime()))
}

func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%dh", int(d.Hours()))
	case d < 2*365*day:
		return fmt.Sprintf("%dd", d/day)
	case d < 50*365*day:
		return fmt.Sprintf("%dy", d/(365*day))
	default:
		return "forever" // No clock was ever so far off: a bound stands in for none.
	}
}

// ByteSize writes n in the largest unit of 1,024 that fits.
func ByteSize(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
