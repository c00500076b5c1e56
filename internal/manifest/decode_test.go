package manifest

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "the manifest is empty"},
		{"only a comment", "# later\n", "the manifest is empty"},
		{"a word", "hello\n", "line 1, column 1: want fields, such as {account: ...}"},
		{"a list", "- a\n", "line 1, column 1: want fields, such as {account: ...}"},
		{"unknown section", "account: {id: a}\norigin: []\n", `line 2, column 1: unknown field "origin"; did you mean "origins"?`},
		{"unknown field", "account: {id: a}\norigins:\n  - id: o\n    web: {baseUrl: http://a, bogus: 1}\n", `line 4, column 30: origins[0].web: unknown field "bogus"; there are baseUrl, forwardHostHeader, forwardRequestHeaders, followRedirects, notFoundStatuses, htmlIsMissing, hostHeader, tlsServerName, caPem, tlsVerify, forwardClientIp`},
		{"a field by number", "1: {id: a}\n", `line 1, column 1: unknown field "1"; there are account, origins, urlEndpoints, customDomains`},
		{"a key twice", "account: {id: a}\naccount: {id: b}\n", `line 2, column 1: field "account" stands twice, first in line 1`},
		{"a key under both its names", "account: {id: a, displayName: x, display_name: y}\n", `line 1, column 34: account: field "display_name" stands twice, first in line 1`},
		{"a header twice", "urlEndpoints:\n- id: e\n  responseHeaders:\n    set:\n      x-a: 1\n      x-a: 2\n", `line 6, column 7: urlEndpoints[0].responseHeaders.set: name "x-a" stands twice, first in line 5`},
		{"a second document", "account: {id: a}\n---\naccount: {id: b}\n", "line 2, column 1: a second document begins here; a manifest is one"},
		{"an alias", "account: &x {id: a}\norigins: [*x]\n",
			"line 1, column 10: account: " + noAlias + "\nline 2, column 11: origins[0]: " + noAlias},
		{"a merge", "account: {id: a}\norigins:\n- <<: {id: o}\n", `line 3, column 3: origins[0]: unknown field "<<"; there are id, displayName, includeCanonicalHeader, baseUrlForCanonicalHeader, timeouts, requestHeaders, probeKey, web, s3, gcs, azureBlob, webProxy, akeneo, breaker`},
		{"a secret that looks like an alias", "origins:\n- id: o\n  s3: {bucket: b, secretAccessKey: *hunter2}\n", "line 3, column 36: " + noAlias},
		{"a null section", "account: {id: a}\norigins:\n", `line 2, column 9: origins: no value; leave the field out, or write [] for an empty list and "" for an empty text`},
		{"a null text", "account: {id: a, displayName: ~}\n", `line 1, column 31: account.displayName: no value; leave the field out, or write [] for an empty list and "" for an empty text`},
		{"a null entry", "account: {id: a}\norigins:\n-\n", `line 3, column 2: origins[0]: no value; leave the field out, or write [] for an empty list and "" for an empty text`},
		{"a section that is no list", "origins: {id: o}\n", "line 1, column 10: origins: want a list"},
		{"no boolean", "origins:\n- id: o\n  s3: {bucket: b, forcePathStyle: maybe}\n", `line 3, column 35: origins[0].s3.forcePathStyle: expected bool, got "maybe"`},
		{"no mode", "customDomains:\n- {domain: a.example, mode: BOTH}\n", `line 2, column 29: customDomains[0].mode: "BOTH" is none of ACCOUNT, URL_ENDPOINT`},
		{"no duration", "urlEndpoints:\n- {id: e, walkDeadline: soon}\n", `line 2, column 25: urlEndpoints[0].walkDeadline: "soon" is no duration: write it like 30s, 10m, 12h or 1d`},
		{"two kinds", "origins:\n- {id: o, web: {baseUrl: http://a}, s3: {bucket: b}}\n", `line 2, column 37: origins[0]: web and s3 exclude each other: drop one of the two`},
		{"no YAML", "account: {id: a\norigins: []\n", "line 2: did not find expected ',' or '}'"},
		{"a mapping that does not end", "account: {id: a}\norigins:\n- {id: o\n- {id: p}\n",
			"line 3: did not find expected ',' or '}'"},
		{"a list among fields", "account: {id: a}\norigins: []\n- {id: p}\n", "line 3: did not find expected key"},
		{"a tab", "account: {id: a}\norigins:\n\t- {id: p}\n", "line 3: found character that cannot start any token"},
		{"two colons", "account:\n  id: a\n   displayName: b\n",
			"line 3: mapping values are not allowed in this context"},
		{"no JSON", "{\"account\": {\"id\": \"a\"}", "line 1: did not find expected ',' or '}'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Decode(tt.text)
			if err == nil {
				t.Fatalf("no error, want %q", tt.want)
			}
			if !errors.As(err, new(Errors)) {
				t.Errorf("%T is no Errors", err)
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error repeats the secret")
			}
		})
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	const yamlText = `
account: {id: acme, displayName: "Acme 😀 Shop"}
origins:
  - {id: legacy, web: {base_url: "http://127.0.0.1:9000", followRedirects: false}}
urlEndpoints:
  - id: default
    origins: [legacy]
    cache: {defaultTtl: 1h30m, staleIfError: 1d, mode: OVERRIDE}
    responseHeaders: {set: {x-a: "1"}}
customDomains: []
`
	const jsonText = "{\n\t\"account\": {\"id\": \"acme\", \"displayName\": \"Acme \\ud83d\\ude00 Shop\"},\n" +
		"\t\"origins\": [{\"id\": \"legacy\", \"web\": {\"baseUrl\": \"http:\\/\\/127.0.0.1:9000\", \"followRedirects\": false}}],\n" +
		"\t\"urlEndpoints\": [{\"id\": \"default\", \"origins\": [\"legacy\"], \"cache\": {\"defaultTtl\": \"5400s\", \"staleIfError\": \"86400s\", \"mode\": \"OVERRIDE\"},\n" +
		"\t\t\"responseHeaders\": {\"set\": {\"x-a\": \"1\"}}}],\n\t\"customDomains\": []\n}\n"
	want := new(adminv1.Manifest)
	if err := protojson.Unmarshal([]byte(jsonText), want); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"YAML": yamlText, "JSON": jsonText} {
		d, err := Decode(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !proto.Equal(d.Manifest, want) {
			t.Errorf("%s:\ngot  %v\nwant %v", name, d.Manifest, want)
		}
		if !d.Has("custom_domains") || d.Has("bogus") || !d.Has("url_endpoints") {
			t.Errorf("%s: sections are not as written", name)
		}
	}
	d, err := Decode(yamlText)
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]Position{
		"origins[0].web.base_url":                      {4, 34},
		"origins[0].web.html_is_missing":               {4, 23},
		"url_endpoints[0].cache.default_ttl":           {8, 25},
		`url_endpoints[0].response_headers.set["x-a"]`: {9, 34},
		"url_endpoints[0].description":                 {6, 5},
		"url_endpoints[7].description":                 {6, 3},
		"nothing":                                      {2, 1},
	} {
		if got := d.At(field); got != want {
			t.Errorf("%s is at %v, want %v", field, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("account: {id: a}\norigins: [{id: o, web: {baseUrl: http://a}}]\n")
	f.Add("{\"account\":{\"id\":\"\\ud83d\\ude00\"},\t\"origins\":[]}")
	f.Add("account: &x {id: a}\norigins: [*x, *y]\n---\n")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Decode(text)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error says nothing")
			}
			return
		}
		if d.Manifest == nil || d.At("account.id").Line == 0 {
			t.Error("a document has no content")
		}
	})
}
