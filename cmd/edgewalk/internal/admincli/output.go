package admincli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"buf.build/go/protoyaml"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// table is what is printed for people.
type table struct {
	head []string
	rows [][]string
}

// print writes the message as --output asks; tab makes the table only when it is wanted.
func (c *cli) print(w io.Writer, message proto.Message, tab func() table) error {
	c.documents++
	switch c.output {
	case "json":
		text, err := protojson.Marshal(message)
		if err != nil {
			return err
		}
		var indented bytes.Buffer // Protojson's own spaces differ from build to build.
		if err := json.Indent(&indented, text, "", "  "); err != nil {
			return err
		}
		indented.WriteByte('\n')
		_, err = indented.WriteTo(w)
		return err
	case "yaml":
		text, err := protoyaml.MarshalOptions{Indent: 2}.Marshal(message)
		if err != nil {
			return err
		}
		if c.documents > 1 {
			text = append([]byte("---\n"), text...)
		}
		_, err = w.Write(text)
		return err
	case "table":
		return tab().write(w)
	default:
		return c.checkOutput()
	}
}

// checkOutput refuses an --output that is none, before anything is done.
func (c *cli) checkOutput() error {
	switch c.output {
	case "table", "json", "yaml":
		return nil
	}
	return usagef("--output is table, json or yaml, not %q", c.output)
}

func (t table) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	if len(t.head) > 0 {
		fmt.Fprintln(tw, strings.Join(t.head, "\t"))
	}
	for _, row := range t.rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			if cell == "" {
				cell = "-"
			}
			cells[i] = strings.Map(printable, cell)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return tw.Flush()
}

// printable keeps what others wrote into names and notes from moving the cursor or the columns.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
		return ' '
	}
	return r
}

// shorten cuts a text that would make a column too wide to read; with -o json or yaml it is whole.
func shorten(text string) string {
	const width = 80
	if runes := []rune(text); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return text
}

// age says how long ago t was, as short as a person needs it.
func age(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return span(time.Since(t.AsTime()))
}

func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// byteSize writes n in the largest unit of 1,024 that fits.
func byteSize(n int64) string {
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
