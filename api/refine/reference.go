package main

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// group is what one service offers.
type group struct {
	Name       string
	Operations []operation
}

type operation struct {
	Verb, Path, Description string
	Parameters              []parameter
	Content, Answer         string // names of schemas
	Example                 string
}

type parameter struct{ Name, In, Type, Description string }

type schema struct {
	Name, Description string
	Fields            []field
}

type field struct{ Name, Type, Notes, Description string }

// reference is the description as a part of a page, to be read.
func reference(root node) ([]byte, error) {
	schemas := root.at("components", "schemas")
	page := struct {
		Groups  []group
		Schemas []schema
	}{}
	index := make(map[string]int)
	for path, item := range root.at("paths").pairs() {
		for verb, o := range item.pairs() {
			tag := strings.TrimSuffix(o.at("tags").Content[0].Value, "Service")
			if _, ok := index[tag]; !ok {
				index[tag] = len(page.Groups)
				page.Groups = append(page.Groups, group{Name: tag})
			}
			g := &page.Groups[index[tag]]
			g.Operations = append(g.Operations, describe(path, verb, o))
		}
	}
	slices.SortStableFunc(page.Groups, func(x, y group) int { return cmp.Compare(x.Name, y.Name) })
	for name, s := range schemas.pairs() {
		one := schema{Name: name, Description: s.at("description").Value}
		for property, p := range s.at("properties").pairs() {
			var notes []string
			for _, note := range []string{"readOnly", "writeOnly"} {
				if p.at(note).Value == "true" {
					notes = append(notes, map[string]string{"readOnly": "output only", "writeOnly": "never read"}[note])
				}
			}
			one.Fields = append(one.Fields,
				field{property, typeOf(p), strings.Join(notes, ", "), p.at("description").Value})
		}
		page.Schemas = append(page.Schemas, one)
	}
	var b bytes.Buffer
	if err := referencePage.Execute(&b, page); err != nil {
		return nil, fmt.Errorf("write the reference: %w", err)
	}
	return b.Bytes(), nil
}

func describe(path, verb string, o node) operation {
	out := operation{Verb: strings.ToUpper(verb), Path: path, Description: o.at("description").Value}
	for _, p := range o.at("parameters").Content {
		p := node{p}
		out.Parameters = append(out.Parameters, parameter{
			p.at("name").Value, p.at("in").Value, typeOf(p.at("schema")), p.at("description").Value,
		})
	}
	json := o.at("requestBody", "content", "application/json")
	out.Content = referred(json.at("schema"))
	if example := json.at("example"); example.Kind != 0 {
		if text, err := yaml.Marshal(example.Node); err == nil {
			out.Example = string(text)
		}
	}
	for _, status := range []string{"200", "201"} {
		if answer := referred(o.at("responses", status, "content", "application/json", "schema")); answer != "" {
			out.Answer = answer
		}
	}
	return out
}

// referred is the name of the schema that one refers to.
func referred(s node) string {
	return strings.TrimPrefix(s.at("$ref").Value, "#/components/schemas/")
}

// typeOf says what a schema is in a word or two.
func typeOf(s node) string {
	if name := referred(s); name != "" {
		return name
	}
	if all := s.at("allOf"); len(all.Content) > 0 {
		return referred(node{all.Content[0]})
	}
	switch kind := s.at("type").Value; {
	case kind == "array":
		return "list of " + typeOf(s.at("items"))
	case s.at("enum").Kind != 0:
		var names []string
		for _, n := range s.at("enum").Content {
			names = append(names, n.Value)
		}
		return strings.Join(names, ", ")
	case kind == "object":
		return "map"
	default:
		return kind
	}
}

var referencePage = template.Must(template.New("").Parse(`<nav aria-label="Services"><ul>{{range .Groups}}
<li><a href="#{{.Name}}">{{.Name}}</a></li>{{end}}
<li><a href="#schemas">Messages</a></li>
</ul></nav>
{{range .Groups}}
<section id="{{.Name}}">
<h2>{{.Name}}</h2>
{{range .Operations}}<details>
<summary><code>{{.Verb}} {{.Path}}</code></summary>
<p>{{.Description}}</p>
{{if .Parameters}}<table>
<thead><tr><th scope="col">Parameter</th><th scope="col">In</th><th scope="col">Type</th><th scope="col">What</th></tr></thead>
<tbody>{{range .Parameters}}
<tr><td><code>{{.Name}}</code></td><td>{{.In}}</td><td>{{.Type}}</td><td>{{.Description}}</td></tr>{{end}}
</tbody></table>
{{end}}{{if .Content}}<p>Content: <a href="#m-{{.Content}}">{{.Content}}</a>{{if .Example}}, such as{{end}}</p>
{{end}}{{if .Example}}<pre>{{.Example}}</pre>
{{end}}{{if .Answer}}<p>Answer: <a href="#m-{{.Answer}}">{{.Answer}}</a></p>
{{end}}</details>
{{end}}</section>
{{end}}
<section id="schemas">
<h2>Messages</h2>
{{range .Schemas}}<h3 id="m-{{.Name}}">{{.Name}}</h3>
<p>{{.Description}}</p>
{{if .Fields}}<table>
<thead><tr><th scope="col">Field</th><th scope="col">Type</th><th scope="col">What</th></tr></thead>
<tbody>{{range .Fields}}
<tr><td><code>{{.Name}}</code></td><td>{{.Type}}{{if .Notes}} <small>({{.Notes}})</small>{{end}}</td><td>{{.Description}}</td></tr>{{end}}
</tbody></table>
{{end}}{{end}}</section>
`))
