package api_test

import (
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/api"
	"github.com/edgewalk/edgewalk/api/apitest"
)

// TestOpenAPI holds that the description is valid OpenAPI 3.0, and says what only this project can.
func TestOpenAPI(t *testing.T) {
	doc, err := apitest.Document()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.0.") || doc.Components.SecuritySchemes["bearer"] == nil {
		t.Errorf("OpenAPI %s with %v", doc.OpenAPI, doc.Components.SecuritySchemes)
	}
	file := doc.Paths.Value("/v1/accounts/{account}/mediaFiles/{mediaFile}")
	if file == nil || file.Put == nil || file.Get == nil || file.Head == nil || file.Delete == nil {
		t.Fatalf("media files: %+v", file)
	}
	if made := doc.Paths.Value("/v1/accounts").Post.Responses.Value("201"); made == nil ||
		made.Value.Headers["Location"] == nil {
		t.Error("a create has no 201 with a Location")
	}
	origin := doc.Components.Schemas["WebOrigin"].Value.Properties["baseUrl"].Value
	if origin.Pattern == "" || origin.MaxLength == nil {
		t.Errorf("a field has no limits: %+v", origin)
	}
	secret := doc.Components.Schemas["S3Origin"].Value.Properties["secretAccessKey"].Value
	if !secret.WriteOnly {
		t.Error("a secret is not said to be write-only")
	}
	if !strings.Contains(string(api.Reference), "POST /v1/accounts/{account}:apply") {
		t.Error("the reference lacks what is served by hand")
	}
}
