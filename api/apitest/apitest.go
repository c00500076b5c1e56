// Package apitest holds replies of the REST API against its description, for tests.
package apitest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/edgewalk/edgewalk/api"
)

// Document is the description, which is valid.
var Document = sync.OnceValues(func() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		return nil, err
	}
	return doc, doc.Validate(context.Background())
})

// Check fails the test unless a reply is one that is described. It returns whether the request is
// described at all.
func Check(t testing.TB, method string, target *url.URL, status int, fields http.Header, content []byte) bool {
	t.Helper()
	described, err := check(t.Context(), method, target, status, fields, content)
	if err != nil {
		t.Errorf("the reply %d to %s %s is not as described: %v", status, method, target, err)
	}
	return described
}

func check(
	ctx context.Context, method string, target *url.URL, status int, fields http.Header, content []byte,
) (described bool, err error) {
	doc, err := Document()
	if err != nil {
		return false, err
	}
	path, item := find(doc, target.Path)
	if item == nil || item.GetOperation(method) == nil {
		return false, nil
	}
	operation := item.GetOperation(method)
	media, _, _ := strings.Cut(fields.Get("Content-Type"), ";")
	answer := operation.Responses.Status(status)
	if answer == nil {
		answer = operation.Responses.Default()
	}
	switch {
	case status < 300 && operation.Responses.Status(status) == nil:
		return true, errors.New("no such status")
	case status < 300 && len(content) > 0 && answer.Value.Content.Get(media) == nil:
		return true, fmt.Errorf("no content of type %s", media)
	case media != "application/json":
		return true, nil
	}
	return true, openapi3filter.ValidateResponse(ctx, &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: &http.Request{Method: method, URL: target, Header: http.Header{}},
			Route: &routers.Route{
				Spec: doc, Path: path, PathItem: item, Method: method, Operation: operation,
			},
		},
		Status: status, Header: fields, Body: io.NopCloser(bytes.NewReader(content)),
	})
}

var variable = regexp.MustCompile(`\\\{[^}]*\\\}`)

// find returns the described path that a request's is: the one with the fewest variables.
func find(doc *openapi3.T, path string) (found string, item *openapi3.PathItem) {
	for template, one := range doc.Paths.Map() {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(template), `\{mediaFile\}`, `.+`)
		pattern = variable.ReplaceAllString(pattern, `[^/]+`)
		if !regexp.MustCompile("^" + pattern + "$").MatchString(path) {
			continue
		}
		if item == nil || strings.Count(template, "{") < strings.Count(found, "{") ||
			strings.Count(template, ":") > strings.Count(found, ":") {
			found, item = template, one
		}
	}
	return found, item
}
