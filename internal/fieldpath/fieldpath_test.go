package fieldpath

import "testing"

func TestPathsAreAsTyped(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][2]string{ // JSON, Typed
		"origin.web.base_url":                {"origin.web.baseUrl", "web.baseUrl"},
		"url_endpoint.cache.default_ttl":     {"urlEndpoint.cache.defaultTtl", "cache.defaultTtl"},
		"url_endpoints[0].cache.default_ttl": {"urlEndpoints[0].cache.defaultTtl", "urlEndpoints[0].cache.defaultTtl"},
		"manifest.origins[1].s3.bucket":      {"manifest.origins[1].s3.bucket", "origins[1].s3.bucket"},
		"start.media_file.content_type":      {"start.mediaFile.contentType", "contentType"},
		`response_headers.set["x_my_field"]`: {
			`responseHeaders.set["x_my_field"]`, `responseHeaders.set["x_my_field"]`,
		},
		"request_headers[x_key].secret_value": {
			"requestHeaders[x_key].secretValue", "requestHeaders[x_key].secretValue",
		},
		"accounts/a/origins/c_d": {"accounts/a/origins/c_d", "accounts/a/origins/c_d"},
		"accounts/a/customDomains/_wildcard.b.example.url_endpoint": {
			"accounts/a/customDomains/_wildcard.b.example.urlEndpoint",
			"accounts/a/customDomains/_wildcard.b.example.urlEndpoint",
		},
		"origin": {"origin", "origin"},
		"accounts/a_b/origins/c_d.s3.access_key": {
			"accounts/a_b/origins/c_d.s3.accessKey", "accounts/a_b/origins/c_d.s3.accessKey",
		},
		"": {"", ""},
	} {
		if got := [2]string{JSON(path), Typed(path)}; got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}

func TestHint(t *testing.T) {
	t.Parallel()
	known := []string{"baseUrl", "hostHeader", "followRedirects", "caPem"}
	for name, want := range map[string]string{
		"baseUri": "baseUrl", "base_url": "baseUrl", "hostheader": "hostHeader", "followRedirect": "followRedirects",
		"capme": "caPem", "x": "", "bucket": "", "": "",
	} {
		if want != "" {
			want = `; did you mean "` + want + `"?`
		}
		if got := Hint(name, known...); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if got := Hint("a"); got != "" {
		t.Errorf("of no names: %q", got)
	}
}
