package main

import (
	"fmt"
	"strings"
)

const (
	filePath  = "/v1/accounts/{account}/mediaFiles/{mediaFile}"
	applyPath = "/v1/accounts/{account}:apply"
)

// addByHand describes the requests that no rule does.
func addByHand(root node) error {
	paths := root.at("paths")
	root.at("components", "schemas").set("UploadMediaFileResponse", parse(uploaded))
	file, apply := paths.get(filePath), paths.get(applyPath)
	if file.Kind == 0 || apply.Kind == 0 {
		return fmt.Errorf("there is no %s or no %s", filePath, applyPath)
	}
	get := file.at("get")
	get.set("description", parse(`"The bytes of a file, whole or in ranges (RFC 9110 14); what is known of it with `+"`Accept: application/json` or `?alt=json`"+`."`))
	get.add("parameters", parse(`{name: alt, in: query, description: "What to answer with, whatever Accept says.", schema: {type: string, enum: [json, media]}}`))
	get.at("responses", "200", "content").set("*/*", parse(bytesSchema))
	get.at("responses", "200").set("headers", parse(etagHeader))
	get.at("responses").insert(1, "206", parse(`{description: The range that was asked for., content: {"*/*": `+bytesSchema+`}}`))
	get.at("responses").insert(2, "304", parse(`{description: "It still has the ETag of If-None-Match."}`))
	get.at("responses").insert(3, "416", parse(`{description: The file has no such range.}`))
	file.set("put", parse(put))
	file.set("head", parse(head))
	for _, verb := range []string{"get", "delete"} {
		for _, p := range file.at(verb, "parameters").Content {
			if p := (node{p}); p.at("name").Value == "mediaFile" {
				p.set("description", parse(`"The path of the file, percent-encoded; its slashes stand as they are."`))
				p.set("example", parse("photos/shoe.jpg"))
			}
		}
	}
	post := apply.at("post")
	post.set("description", parse(`"ApplyManifest applies a manifest, which is the content as it is, in YAML or JSON: errors tell line and column."`))
	post.remove("parameters", func(p node) bool {
		name := p.at("name").Value
		return name == "text" || strings.HasPrefix(name, "manifest.")
	})
	content := post.at("requestBody", "content")
	content.at("application/json").set("example", parse(manifest))
	content.set("application/yaml", content.at("application/json"))
	export := paths.at("/v1/accounts/{account}:export", "get", "responses", "200", "content")
	export.set("application/yaml", parse(`{schema: {$ref: "#/components/schemas/Manifest"}}`))
	paths.set("/v1/edges:watch", parse(watch))
	return nil
}

const (
	bytesSchema = `{schema: {type: string, format: binary}}`
	failure     = `{description: "An error. Which status has which reason: docs/rest.md.", content: {application/json: {schema: {$ref: "#/components/schemas/Status"}}}}`
	stored      = `content: {application/json: {schema: {$ref: "#/components/schemas/UploadMediaFileResponse"}}}`
	fileParams  = `
  - {name: account, in: path, required: true, description: The account id., schema: {type: string}}
  - {name: mediaFile, in: path, required: true, description: "The path of the file, percent-encoded; its slashes stand as they are.", schema: {type: string}, example: photos/shoe.jpg}
`
	put = `
tags: [MediaService]
description: Brings a file, as it is. An upload that breaks off leaves nothing.
operationId: MediaService_UploadMediaFile
parameters:` + fileParams + `
  - {name: tags, in: query, description: Words by which the file can be purged., schema: {type: array, items: {type: string}}}
  - {name: requestId, in: query, description: "A UUID: the same request with it has one effect within 15 minutes.", schema: {type: string, format: uuid}}
  - {name: If-None-Match, in: header, description: "Only if there is no such file yet.", schema: {type: string, enum: ["*"]}}
  - {name: If-Match, in: header, description: "An ETag: fail with 412 if the file has changed since.", schema: {type: string}}
  - {name: Repr-Digest, in: header, description: "sha-256=:...: has the bytes checked (RFC 9530).", schema: {type: string}}
requestBody: {required: true, content: {"*/*": ` + bytesSchema + `}}
responses:
  "200": {description: "Replaced, or the same as before.", headers: ` + etagHeader + `, ` + stored + `}
  "201": {description: "Created.", headers: ` + locationHeader + `, ` + stored + `}
  default: ` + failure
	head = `
tags: [MediaService]
description: What GET would answer with, without the bytes.
operationId: MediaService_HeadMediaFile
parameters:` + fileParams + `
responses:
  "200": {description: OK, headers: ` + etagHeader + `}
  default: {description: An error.}
`
	watch = `
get:
  tags: [FleetService]
  description: >-
    How the edges stand, as server-sent events: reset, an edge event for each edge and revision; then an edge event whenever one changes, left with the name of one that is no longer remembered,
    and revision when the topology has another. It ends with the token, after an end event.
  operationId: FleetService_WatchEdges
  responses:
    "200": {description: The stream., content: {text/event-stream: {schema: {type: string}}}}
    default: ` + failure + `
`
	uploaded = `
type: object
description: UploadMediaFileResponse tells what the file is now.
properties:
  mediaFile: {allOf: [{$ref: "#/components/schemas/MediaFile"}], description: The file.}
  revision: {type: string, description: "The revision of the write; the current one when nothing changed."}
  warnings: {type: array, items: {type: string}, description: "What is allowed, but probably not meant."}
  outcome: {type: string, enum: [OUTCOME_UNSPECIFIED, CREATED, REPLACED, UNCHANGED], description: What became of it. Left out for a request that was done before.}
`
	manifest = `
account: {id: acme, displayName: Acme Shop}
origins:
  - {id: legacy, web: {baseUrl: "https://www.example.com"}}
urlEndpoints:
  - {id: default, origins: [legacy]}
`
)
