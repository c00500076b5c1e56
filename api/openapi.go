// Package api has the description of the REST API, in OpenAPI 3.0
// (https://spec.openapis.org/oas/v3.0.3): what programs write clients from. `make generate` makes
// it of the protos.
package api

import (
	_ "embed"
	"html/template"
)

// OpenAPI is the description, in YAML.
//
//go:embed openapi.yaml
var OpenAPI []byte

// Reference is the description for people, as what stands in the body of a page. It has neither
// script nor style.
var Reference = template.HTML(reference)

//go:embed reference.html
var reference string
