package admincli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/edgewalk/edgewalk/internal/manifest"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// document is one manifest, of a file that may hold several.
type document struct {
	source string // for errors: the file, and which of its documents this is
	text   string
	// shown is what get has shown, as a manifest; nil for a text that is one.
	shown *adminv1.Manifest
}

// maxText bounds the text of one manifest.
const maxText = 3 << 20

// documentsOf splits a file. Each document keeps its place: there are as many lines before it as in
// the file.
func documentsOf(name, text string) []document {
	chunks := jsonValues(text)
	if chunks == nil {
		chunks = yamlDocuments(text)
	}
	if len(chunks) == 0 {
		chunks = []chunk{{0, text}}
	}
	var all []document
	for i, c := range chunks {
		d := document{source: sourceName(name), text: c.text}
		if len(chunks) > 1 {
			d.source = fmt.Sprintf("%s, document %d of %d", d.source, i+1, len(chunks))
		}
		if c.line+len(c.text) <= maxText {
			d.text = strings.Repeat("\n", c.line) + c.text
		} else {
			d.source += fmt.Sprintf(" (its line 1 is line %d)", c.line+1)
		}
		all = append(all, d)
	}
	return all
}

// chunk is a part of a text, and how many lines there are before it.
type chunk struct {
	line int
	text string
}

// jsonValues splits a text that is nothing but JSON objects, or returns nil.
func jsonValues(text string) []chunk {
	if !strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), "{") {
		return nil
	}
	var chunks []chunk
	line, from := 0, 0
	for decoder := json.NewDecoder(strings.NewReader(text)); ; {
		var value json.RawMessage
		switch err := decoder.Decode(&value); {
		case errors.Is(err, io.EOF):
			return chunks
		case err != nil:
			return nil
		}
		to := int(decoder.InputOffset())
		begin := to - len(value)
		line += strings.Count(text[from:begin], "\n")
		chunks = append(chunks, chunk{line, text[begin:to]})
		line += strings.Count(text[begin:to], "\n")
		from = to
	}
}

// yamlDocuments splits a text at the lines that YAML keeps for that: no document may have such a
// line. Documents without content are left out, and so are directives, of which none is needed.
func yamlDocuments(text string) []chunk {
	var chunks []chunk
	var now chunk
	var body strings.Builder
	content := false
	end := func(next int) {
		if now.text = body.String(); content {
			chunks = append(chunks, now)
		}
		now.line, content = next, false
		body.Reset()
	}
	n := 0
	for line := range strings.Lines(text) {
		rest, begins := marker(line, "---")
		_, ends := marker(line, "...")
		switch {
		case begins:
			end(n)
			content = content || hasContent(rest)
		case ends:
			end(n)
		default:
			content = content || hasContent(line)
		}
		n++
		if ends {
			line = "\n"
		}
		body.WriteString(line)
	}
	end(n)
	return chunks
}

// marker reports whether a line begins with a marker of YAML, and returns what else it holds.
func marker(line, marker string) (rest string, is bool) {
	rest, is = strings.CutPrefix(line, marker)
	return rest, is && (rest == "" || strings.ContainsAny(rest[:1], " \t\r\n"))
}

// hasContent reports whether there is more in a line than a comment or a directive.
func hasContent(line string) bool {
	line = strings.TrimSpace(line)
	return line != "" && line[0] != '#' && line[0] != '%'
}

// decode reads a document that is one of several.
func (d document) decode() (*adminv1.Manifest, error) {
	if d.shown != nil {
		return d.shown, nil
	}
	decoded, err := manifest.Decode(d.text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.source, err)
	}
	return decoded.Manifest, nil
}
