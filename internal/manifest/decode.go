// Package manifest reads an account's manifest, or a resource by itself, from YAML or JSON and
// compares two resources field by field.
//
// It is pure. A text either decodes whole or gives errors that carry line, column and field; what a
// reader could misunderstand (a key twice, an alias, a second document, an empty section) is an
// error, never a guess. No error repeats the text's values next to a secret. What a manifest means
// for an account is adminsvc's business.
package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/internal/duration"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Document is a decoded text.
type Document struct {
	// Manifest is what the text says, if it is a manifest.
	Manifest *adminv1.Manifest
	// Message is what the text says.
	Message proto.Message
	// positions holds where each field of the text is, by its path: `origins[2].web.base_url`.
	positions map[string]Position
}

// Position is a place in a text. Line and Column count from 1; 0 is unknown.
type Position struct{ Line, Column int }

// Error is one mistake in a text.
type Error struct {
	Position
	// Field is the path of the field, such as `origins[2].web.base_url`. Empty when the mistake is
	// in no field.
	Field string
	// Text says what is wrong.
	Text string
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d", e.Line)
		if e.Column > 0 {
			fmt.Fprintf(&b, ", column %d", e.Column)
		}
		b.WriteString(": ")
	}
	if e.Field != "" {
		b.WriteString(fieldpath.JSON(e.Field) + ": ")
	}
	return b.String() + e.Text
}

// Errors are the mistakes of a text, in its order.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Decode reads a manifest. Its error is [Errors].
func Decode(text string) (*Document, error) {
	m := new(adminv1.Manifest)
	d, err := DecodeMessage(text, m)
	if err != nil {
		return nil, err
	}
	d.Manifest = m
	return d, nil
}

// DecodeMessage reads a text into a message, which is empty: a resource by itself is written as in
// a manifest. Its error is [Errors].
func DecodeMessage(text string, m proto.Message) (*Document, error) {
	text = fromJSON(text)
	what := "file"
	if _, ok := m.(*adminv1.Manifest); ok {
		what = "manifest"
	}
	root, err := parse(text, what)
	if err != nil {
		return nil, Errors{err}
	}
	d := &Document{Message: m, positions: map[string]Position{}}
	w := &walker{positions: d.positions}
	w.message(root, m.ProtoReflect().Descriptor(), "")
	if len(w.errors) > 0 {
		return nil, w.errors
	}
	if err := (protoyaml.UnmarshalOptions{CustomUnmarshaler: durations{}}).Unmarshal(
		[]byte(text), d.Message,
	); err != nil {
		return nil, d.fromProtoyaml(err)
	}
	return d, nil
}

// durations has fields take the durations that flags take.
type durations struct{}

// Unmarshal implements [protoyaml.CustomUnmarshaler].
func (durations) Unmarshal(node *yaml.Node, message proto.Message) (bool, error) {
	d, ok := message.(*durationpb.Duration)
	if !ok || node.Kind != yaml.ScalarNode {
		return false, nil
	}
	given, err := duration.Parse(node.Value)
	if err != nil {
		return false, nil // The walker has let it pass: it is one for protoyaml.
	}
	proto.Merge(d, durationpb.New(given))
	return true, nil
}

// Has reports whether the text has the section, such as `custom_domains`, be it empty.
func (d *Document) Has(section string) bool {
	_, ok := d.positions[section]
	return ok
}

// At returns where a field is; a field that the text leaves out is where its nearest parent is.
func (d *Document) At(field string) Position {
	for {
		if p, ok := d.positions[field]; ok {
			return p
		}
		i := strings.LastIndexAny(field, ".[")
		if i < 0 {
			return d.positions[""]
		}
		field = field[:i]
	}
}

// parse reads the one document of a text, which errors call what it is.
func parse(text, what string) (*yaml.Node, *Error) {
	dec := yaml.NewDecoder(strings.NewReader(text))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, &Error{Text: "the " + what + " is empty"}
	case err != nil:
		return nil, fromYAML(text, err)
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		return nil,
			&Error{
				Position: Position{Line: second.Line, Column: second.Column},
				Text:     "a second document begins here; a " + what + " is one",
			}
	case !errors.Is(err, io.EOF):
		return nil, fromYAML(text, err)
	}
	return doc.Content[0], nil
}

var (
	yamlLine      = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)
	unknownAnchor = regexp.MustCompile(`unknown anchor '(.*)' referenced`)
	// unfinished are errors of the YAML parser, unlike those of its scanner: it counts their lines
	// from 0, and reports no 0.
	unfinished = regexp.MustCompile(`^did not find expected (key|node content|',' or|'-' indicator|<)`)
)

// fromYAML keeps the name of an unknown anchor out of the error: an unquoted secret may begin with
// `*`.
func fromYAML(text string, err error) *Error {
	if m := unknownAnchor.FindStringSubmatch(err.Error()); m != nil {
		e := &Error{Text: noAlias}
		if before, _, ok := strings.Cut(text, "*"+m[1]); ok {
			e.Line = 1 + strings.Count(before, "\n")
			e.Column = len(before) - strings.LastIndexByte(before, '\n')
		}
		return e
	}
	m := yamlLine.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0])
	if m == nil {
		return &Error{Text: "the text is neither YAML nor JSON"}
	}
	line, _ := strconv.Atoi(m[1]) // An error without a line has 0.
	if unfinished.MatchString(m[2]) {
		line = min(line+1, 1+strings.Count(strings.TrimSpace(text), "\n")) // The end of a text is no line of its own.
	}
	return &Error{Position: Position{Line: line}, Text: m[2]}
}

var protoyamlLine = regexp.MustCompile(`^:(\d+):(\d+) (.*)`)

// fromProtoyaml takes position and sentence of each error and leaves out the quoted source line,
// which may hold a secret.
func (d *Document) fromProtoyaml(err error) Errors {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	fields := make(map[Position]string, len(d.positions))
	for field, p := range d.positions {
		if len(field) > len(fields[p]) {
			fields[p] = field
		}
	}
	var out Errors
	for _, err := range all {
		m := protoyamlLine.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0])
		if m == nil {
			out = append(out, &Error{Text: "the text does not fit"})
			continue
		}
		e := &Error{Text: m[3]}
		e.Line, _ = strconv.Atoi(m[1])
		e.Column, _ = strconv.Atoi(m[2])
		e.Field = fields[e.Position]
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b *Error) int { return a.Line - b.Line })
	return out
}

// fromJSON writes a text that is JSON so that a YAML parser takes it.
func fromJSON(text string) string {
	if !strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), "{") || !json.Valid([]byte(text)) {
		return text
	}
	return jsonAsYAML(text)
}

// escapes finds each escape of a JSON text, a surrogate pair as one, and characters that YAML has
// for ends of lines, or refuses, where JSON has them in texts as any other.
var escapes = regexp.MustCompile(`\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\.|` +
	`[\x{7f}-\x{9f}\x{2028}\x{2029}\x{feff}\x{fffe}\x{ffff}]`)

// jsonAsYAML writes valid JSON so that a YAML parser takes it for the same: tabs, which JSON has
// only between tokens, become spaces, a surrogate pair becomes the one escape that YAML has for it,
// `\/`, which the parser does not know, a plain slash, and what it would take for something else an
// escape.
func jsonAsYAML(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return r == '\t' || r == '\\' || r > '~' }) {
		return text // as most are: the expression looks at each character for long
	}
	text = strings.ReplaceAll(text, "\t", " ")
	return escapes.ReplaceAllStringFunc(text, func(escape string) string {
		switch {
		case escape == `\/`:
			return "/"
		case escape[0] != '\\':
			r, _ := utf8.DecodeRuneInString(escape)
			return fmt.Sprintf(`\u%04X`, r)
		case len(escape) != len(`\ud83d\ude00`):
			return escape
		}
		high, _ := strconv.ParseUint(escape[2:6], 16, 16) // The pattern lets only hex digits pass.
		low, _ := strconv.ParseUint(escape[8:12], 16, 16)
		return fmt.Sprintf(`\U%08X`, utf16.DecodeRune(rune(high), rune(low)))
	})
}
