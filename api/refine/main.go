// Command refine makes openapi.yaml and reference.html in the folder of its first argument, of what
// protoc-gen-openapi has made of the protos, which is its input. It adds what no google.api.http
// rule can say: how a caller is known, the requests that are served by hand, statuses and header
// fields, examples, and the limits that the protos set for protovalidate.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

func main() {
	if err := run(os.Stdin, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "refine:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, dir string) error {
	var doc yaml.Node
	if err := yaml.NewDecoder(in).Decode(&doc); err != nil {
		return fmt.Errorf("read what protoc-gen-openapi has made: %w", err)
	}
	root := node{doc.Content[0]}
	root.set("info", parse(info))
	root.set("servers", parse(`[{url: /, description: "The control plane's --http-addr."}]`))
	root.set("security", parse("[{bearer: []}]"))
	root.at("components").set("securitySchemes", parse(bearer))
	limitSchemas(root.at("components", "schemas"))
	taken := make(map[string]bool)
	for path, item := range root.at("paths").pairs() {
		for verb, operation := range item.pairs() {
			refine(path, verb, operation)
			// A method may be called by several requests.
			id := operation.at("operationId")
			if taken[id.Value] {
				id.Value += "_" + verb
			}
			taken[id.Value] = true
		}
	}
	if err := addByHand(root); err != nil {
		return err
	}
	unwrap(root)
	var b bytes.Buffer
	b.WriteString("# Made by make generate of the protos: do not edit.\n")
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(root.Node); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	page, err := reference(root)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"openapi.yaml": b.Bytes(), "reference.html": page} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const info = `
title: edgewalk
version: v1
license: {name: Apache-2.0, url: "https://www.apache.org/licenses/LICENSE-2.0"}
description: |-
  Accounts, origins, URL-endpoints, custom domains, media files and purges of an edgewalk control plane, and the edges that serve them.

  64-bit numbers are texts. Fields without a value are left out. A write answers with the revision of the topology that has it: an edge that has applied
  that revision serves accordingly, and ` + "`/v1/edges:waitApplied`" + ` waits for all edges. An error is a google.rpc.Status with an ErrorInfo, whose reason
  programs tell errors apart by.
`

const bearer = `
bearer:
  type: http
  scheme: bearer
  description: A token that ` + "`edgewalk token create`" + ` has made.
`

// refine adds to one operation.
func refine(path, verb string, operation node) {
	id := operation.at("operationId").Value
	method := id[strings.IndexByte(id, '_')+1:]
	limitParameters(operation, method)
	resource := path[strings.LastIndexByte(path, '/')+1:]
	own := strings.HasPrefix(resource, "{") && strings.HasSuffix(resource, "}")
	responses := operation.at("responses")
	responses.at("default").set("description", parse(`"An error. Which status has which reason: docs/rest.md."`))
	switch {
	case verb == "get" && own && hasEtag(method):
		responses.at("200").set("headers", parse(etagHeader))
	case verb == "patch" && own:
		operation.add("parameters", parse(ifMatch))
		responses.at("200").set("headers", parse(etagHeader))
	case verb == "delete" && own && hasEtag(method):
		operation.add("parameters", parse(ifMatch))
	case verb == "post" && strings.HasPrefix(method, "Create"):
		made := responses.at("200")
		made.set("description", parse("Created."))
		if location := createdAt(method); location {
			made.set("headers", parse(locationHeader))
		}
		responses.rename("200", "201")
		if names := parameterNames(operation); slices.Contains(names, "validateOnly") {
			responses.insert(1, "200", parse(`{description: "With validateOnly: it could be created.", content: {application/json: {schema: {$ref: "#/components/schemas/`+method+`Response"}}}}`))
		}
	case method == "WaitApplied":
		responses.insert(1, "409", parse(`{description: "The wait timed out: the message and the metadata of its ErrorInfo, reason EDGES_PENDING, name the pending edges.", content: {application/json: {schema: {$ref: "#/components/schemas/Status"}}}}`))
	}
	content := operation.at("requestBody", "content", "application/json")
	if example, ok := examples[method]; ok && content.Kind != 0 {
		content.set("example", parse(example))
	}
}

const (
	etagHeader     = `{ETag: {description: "The etag of the resource.", schema: {type: string}}}`
	locationHeader = `{Location: {description: "Where the resource is.", schema: {type: string}}, ETag: {description: "Its etag.", schema: {type: string}}}`
	ifMatch        = `{name: If-Match, in: header, description: "An ETag: fail with 412 if the resource has changed since.", schema: {type: string}}`
)

// examples are contents of requests, by method.
var examples = map[string]string{
	"CreateAccount":     `{displayName: Acme Shop}`,
	"CreateOrigin":      `{displayName: Old shop, web: {baseUrl: "https://www.example.com"}}`,
	"CreateUrlEndpoint": `{description: product shots only, origins: [product-images, legacy]}`,
	"UpdateUrlEndpoint": `{origins: [legacy, product-images]}`,
	"CreatePurge":       `{prefix: /photos/, kind: HARD}`,
	"CreateToken":       `{role: EDITOR, account: accounts/acme, description: CI}`,
	"Explain":           `{url: "https://cdn.example.com/acme/product-images/a.jpg"}`,
	"WaitApplied":       `{revision: "42", timeout: 60s}`,
}

// unwrap makes one line of what the protos wrap.
func unwrap(n node) {
	for key, value := range n.pairs() {
		if key == "description" && value.Kind == yaml.ScalarNode {
			paragraphs := strings.Split(value.Value, "\n\n")
			for i, p := range paragraphs {
				paragraphs[i] = strings.Join(strings.Fields(p), " ")
			}
			value.Value, value.Style = strings.Join(paragraphs, "\n\n"), 0
		}
	}
	for _, c := range n.Content {
		unwrap(node{c})
	}
}

func parameterNames(operation node) (names []string) {
	for _, p := range operation.at("parameters").Content {
		names = append(names, node{p}.at("name").Value)
	}
	return names
}
