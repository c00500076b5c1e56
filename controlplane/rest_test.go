package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/edgewalk/edgewalk/api/apitest"
)

// api is a client of a running control plane's REST API.
type api struct {
	t      *testing.T
	base   string
	token  string
	client *http.Client
}

// answer is a reply.
type answer struct {
	status int
	fields http.Header
	text   string
	body   map[string]any // nil unless it is JSON
}

// apiOf is a client with the root token of a control plane.
func apiOf(t *testing.T, r *running) *api {
	t.Helper()
	fields, _ := metadata.FromOutgoingContext(with(t, context.Background(), r.cfg.DataDir, "root"))
	return &api{
		t: t, base: "http://" + r.Addresses().HTTP, token: fields["authorization"][0], client: http.DefaultClient,
	}
}

// do sends a request. more are names and values of fields.
func (a *api) do(method, path, content string, more ...string) answer {
	a.t.Helper()
	return a.send(method, path, strings.NewReader(content), more...)
}

func (a *api) send(method, path string, content io.Reader, more ...string) answer {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), method, a.base+path, content)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.token != "" {
		r.Header.Set("Authorization", a.token)
	}
	for i := 0; i+1 < len(more); i += 2 {
		r.Header.Set(more[i], more[i+1])
	}
	resp, err := a.client.Do(r)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	if !apitest.Check(a.t, method, r.URL, resp.StatusCode, resp.Header, text) && resp.StatusCode < 300 &&
		method != http.MethodHead {
		a.t.Errorf("%s %s is not described", method, path)
	}
	out := answer{status: resp.StatusCode, fields: resp.Header, text: string(text)}
	if resp.Header.Get("Content-Type") == "application/json" && method != http.MethodHead {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&out.body); err != nil {
			a.t.Errorf("%s %s: %v in %s", method, path, err, text)
		}
	}
	return out
}

// want sends a request that is to be answered with a status.
func (a *api) want(status int, method, path, content string, more ...string) answer {
	a.t.Helper()
	got := a.do(method, path, content, more...)
	if got.status != status {
		a.t.Errorf("%s %s: %d, want %d: %s", method, path, got.status, status, got.text)
	}
	if allowed := got.fields.Get("Allow"); got.status == http.StatusMethodNotAllowed &&
		(allowed == "" || strings.Contains(allowed, method)) { // RFC 9110 15.5.6
		a.t.Errorf("%s %s is not allowed, and allowed are %q", method, path, allowed)
	}
	return got
}

// at is a value in JSON, by its path; nil if there is none.
func (a answer) at(path ...string) any {
	var v any = a.body
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

// reason is the reason of an error, and field the first field at fault.
func (a answer) reason() string { return a.detail("ErrorInfo", "reason") }

func (a answer) detail(kind, name string) string {
	details, _ := a.at("details").([]any)
	for _, d := range details {
		m, _ := d.(map[string]any)
		if typ, _ := m["@type"].(string); strings.HasSuffix(typ, kind) {
			text, _ := m[name].(string)
			return text
		}
	}
	return ""
}

func (a answer) field() string {
	details, _ := a.at("details").([]any)
	for _, d := range details {
		m, _ := d.(map[string]any)
		if list, ok := m["fieldViolations"].([]any); ok && len(list) > 0 {
			one, _ := list[0].(map[string]any)
			text, _ := one["field"].(string)
			return text
		}
	}
	return ""
}

// created makes the account acme with an origin.
func (a *api) created() {
	a.t.Helper()
	a.want(201, "POST", "/v1/accounts?accountId=acme", `{"displayName": "Acme"}`)
	a.want(201, "POST", "/v1/accounts/acme/origins?originId=legacy", `{"web": {"baseUrl": "http://127.0.0.1:1"}}`)
}

// TestRESTRequests holds what requests are answered with.
func TestRESTRequests(t *testing.T) {
	r := start(t, loopbackConfig(t.TempDir()))
	a := apiOf(t, r)
	a.created()
	const origin = "/v1/accounts/acme/origins/legacy"
	for _, test := range []struct {
		name                 string
		method, path, body   string
		fields               []string
		status               int
		reason, field, says  string
		location, has, hasIt string // a field of the reply, and its value
	}{
		{name: "a read", method: "GET", path: origin, status: 200, has: "origin.web.baseUrl",
			hasIt: "http://127.0.0.1:1"},
		{name: "a head", method: "HEAD", path: origin, status: 200},
		{name: "int64 as text", method: "GET", path: "/v1/accounts/acme", status: 200,
			has: "account.effectiveLimits.uploadBytes", hasIt: "1073741824"},
		{name: "a page", method: "GET", path: "/v1/accounts/acme/origins?pageSize=1", status: 200},
		{name: "a page by the name in the proto", method: "GET", path: "/v1/accounts/acme/origins?page_size=1",
			status: 200},
		{name: "a create", method: "POST", path: "/v1/accounts/acme/origins?originId=b",
			body:   `{"web": {"baseUrl": "http://b.example"}}`,
			status: 201, location: "/v1/accounts/acme/origins/b"},
		{name: "a create that only checks", method: "POST",
			path: "/v1/accounts/acme/origins?originId=c&validateOnly=true",
			body: `{"web": {"baseUrl": "http://c.example"}}`, status: 200},
		{name: "it was not made", method: "GET", path: "/v1/accounts/acme/origins/c", status: 404,
			reason: "RESOURCE_NOT_FOUND"},
		{name: "a create of what there is", method: "POST", path: "/v1/accounts/acme/origins?originId=b",
			body: `{"web": {"baseUrl": "http://b.example"}}`, status: 409, reason: "RESOURCE_EXISTS"},
		{name: "an update", method: "PATCH", path: "/v1/accounts/acme/urlEndpoints/default",
			body:   `{"description": "all"}`,
			status: 200, has: "urlEndpoint.description", hasIt: "all"},
		{name: "an update that empties", method: "PATCH", path: "/v1/accounts/acme/urlEndpoints/default",
			body: `{"description": ""}`, status: 200},
		{name: "it is empty", method: "GET", path: "/v1/accounts/acme/urlEndpoints/default", status: 200,
			has: "urlEndpoint.description"},
		{name: "an update with a mask", method: "PATCH", path: "/v1/accounts/acme/urlEndpoints/default?updateMask=description",
			body: `{"description": "x", "compress": "OFF"}`, status: 200, has: "urlEndpoint.compress"},
		{name: "an update of a map", method: "PATCH", path: "/v1/accounts/acme/urlEndpoints/default",
			body: `{"responseHeaders": {"set": {"x-a": "1"}}}`, status: 200, has: "urlEndpoint.responseHeaders.set.x-a",
			hasIt: "1"},
		{name: "what was read, written back", method: "PATCH", path: origin,
			body: `{"name": "accounts/acme/origins/legacy", "id": "legacy", "createTime": "2026-01-01T00:00:00Z", "displayName": "L"}`, status: 200},
		{name: "an unknown field", method: "PATCH", path: origin, body: `{"web": {"basUrl": "http://x"}}`, status: 400,
			reason: "UNKNOWN_FIELD", field: "web.basUrl", says: `did you mean "baseUrl"?`},
		{name: "an unknown field in a list", method: "PATCH", path: origin,
			body:   `{"requestHeaders": [{"name": "x-a", "vale": "1"}]}`,
			status: 400, reason: "UNKNOWN_FIELD", field: "requestHeaders[0].vale"},
		{name: "a field at fault", method: "PATCH", path: origin, body: `{"web": {"baseUrl": "ftp://x"}}`, status: 400,
			reason: "INVALID_FIELD", field: "web.baseUrl"},
		{name: "a text for a number", method: "PATCH", path: "/v1/accounts/acme/urlEndpoints/default",
			body: `{"defaultImage": {"status": "no"}}`, status: 400, reason: "INVALID_FIELD",
			field: "defaultImage.status", says: "want a whole number"},
		{name: "a wrong enum", method: "PATCH", path: "/v1/accounts/acme/urlEndpoints/default",
			body:   `{"compress": "MAYBE"}`,
			status: 400, reason: "INVALID_FIELD", field: "compress"},
		{name: "no JSON", method: "PATCH", path: origin, body: "{\n \"a\": \"b\"", status: 400, reason: "INVALID_FIELD",
			says: "line 2"},
		{name: "YAML", method: "PATCH", path: origin, body: "displayName: x", status: 400, reason: "INVALID_FIELD",
			says: "line 1, column 1"},
		{name: "a list", method: "PATCH", path: origin, body: "[]", status: 400, reason: "INVALID_FIELD",
			says: "no JSON object"},
		{name: "two documents", method: "PATCH", path: origin, body: `{"displayName": "a"} {"displayName": "b"}`,
			status: 400, reason: "INVALID_FIELD", says: "line 1, column 21"},
		{name: "two documents, one with a duration", method: "PATCH", path: origin,
			body: `{"timeouts": {"connect": "1m"}} {}`, status: 400, reason: "INVALID_FIELD", says: "after its end"},
		{name: "a field twice", method: "PATCH", path: origin, body: `{"displayName": "a", "displayName": "b"}`,
			status: 400, reason: "INVALID_FIELD", field: "displayName", says: "twice"},
		{name: "a duration twice", method: "PATCH", path: origin,
			body:   `{"requestHeaders": [], "timeouts": {"connect": "1m", "idle": "1m", "connect": "2m"}}`,
			status: 400, reason: "INVALID_FIELD", field: "timeouts.connect", says: "twice"},
		{name: "a field twice in a list", method: "PATCH", path: origin,
			body:   `{"requestHeaders": [{"name": "x-a"}, {"name": "x-b", "value": "1", "value": "2"}]}`,
			status: 400, reason: "INVALID_FIELD", field: "requestHeaders[1].value", says: "twice"},
		{name: "a field by both of its names", method: "PATCH", path: origin,
			body:   `{"timeouts": {"firstByte": "1m", "first_byte": "2m"}}`,
			status: 400, reason: "INVALID_FIELD"},
		{name: "another name", method: "PATCH", path: origin, body: `{"name": "accounts/acme/origins/b"}`, status: 400,
			reason: "INVALID_FIELD", field: "name"},
		{name: "another type", method: "PATCH", path: origin, body: `<a/>`,
			fields: []string{"Content-Type", "text/xml"}, status: 415,
			reason: "UNSUPPORTED_MEDIA_TYPE"},
		{name: "too much", method: "PATCH", path: origin, body: `{"displayName": "` + strings.Repeat("x", 5<<20) + `"}`,
			status: 413,
			reason: "CONTENT_TOO_LARGE"},
		{name: "an unknown parameter", method: "POST", path: "/v1/accounts/acme/origins?originId=d&validatOnly=true",
			body: `{"web": {"baseUrl": "http://d.example"}}`, status: 400, reason: "UNKNOWN_FIELD",
			field: "validatOnly",
			says:  `did you mean "validateOnly"?`},
		{name: "a parameter that is in the path", method: "GET", path: origin + "?name=x", status: 400,
			reason: "UNKNOWN_FIELD", field: "name"},
		{name: "a parameter that is content", method: "POST", path: "/v1/accounts?account.displayName=x", body: `{}`,
			status: 400,
			reason: "UNKNOWN_FIELD", field: "account.displayName"},
		{name: "a parameter beside content", method: "POST", path: "/v1/edges:waitApplied?revision=1", body: `{}`,
			status: 400,
			reason: "UNKNOWN_FIELD", field: "revision"},
		{name: "a parameter that is no number", method: "GET", path: "/v1/accounts/acme/origins?pageSize=x",
			status: 400,
			reason: "INVALID_FIELD", field: "pageSize"},
		{name: "a parameter twice", method: "GET", path: "/v1/accounts/acme/origins?pageSize=1&pageSize=2", status: 400,
			reason: "INVALID_FIELD"},
		{name: "content for a delete", method: "DELETE", path: origin, body: `{}`, status: 400,
			reason: "UNKNOWN_FIELD"},
		{name: "an etag that is old", method: "PATCH", path: origin, body: `{"displayName": "x"}`,
			fields: []string{"If-Match", `"1"`},
			status: 412, reason: "ETAG_MISMATCH"},
		{name: "an etag that is weak", method: "PATCH", path: origin, body: `{"displayName": "x"}`,
			fields: []string{"If-Match", `W/"1"`},
			status: 400, reason: "INVALID_FIELD"},
		{name: "any etag", method: "PATCH", path: origin, body: `{"displayName": "y"}`,
			fields: []string{"If-Match", "*"}, status: 200},
		{name: "any etag of an account that is not there", method: "POST", path: "/v1/accounts/later:apply",
			body: "account: {id: later}\n", fields: []string{"If-Match", "*"}, status: 400, reason: "INVALID_FIELD"},
		{name: "an account that was not made", method: "GET", path: "/v1/accounts/later", status: 404,
			reason: "RESOURCE_NOT_FOUND"},
		{name: "any etag of what is made", method: "POST", path: "/v1/accounts?accountId=later", body: `{}`,
			fields: []string{"If-Match", "*"}, status: 400, reason: "INVALID_FIELD"},
		{name: "a delete with an old etag", method: "DELETE", path: origin, fields: []string{"If-Match", `"1"`},
			status: 412, reason: "ETAG_MISMATCH"},
		{name: "an etag where there is none", method: "POST", path: "/v1/edges:freeze", body: `{"revision": "1"}`,
			fields: []string{"If-Match", `"1"`}, status: 400, reason: "INVALID_FIELD"},
		{name: "a delete of what is used", method: "DELETE", path: origin, status: 400, reason: "RESOURCE_IN_USE"},
		{name: "a wait that times out", method: "POST", path: "/v1/edges:waitApplied",
			body: `{"revision": "1", "timeout": "0.01s"}`, status: 409,
			reason: "EDGES_PENDING"},
		{name: "a wait as a read", method: "GET", path: "/v1/edges:waitApplied?revision=1&timeout=0.01s", status: 409,
			reason: "EDGES_PENDING"},
		{name: "a wait for the future", method: "GET", path: "/v1/edges:waitApplied?revision=1000000", status: 400,
			reason: "REVISION_IN_FUTURE"},
		{name: "no edge to ask", method: "GET", path: "/v1:explain?url=http://localhost/acme/a.jpg", status: 503,
			reason: "NO_EDGE_CONNECTED"},
		{name: "no edge to ask, by content", method: "POST", path: "/v1:explain",
			body: `{"url": "http://localhost/acme/a.jpg"}`, status: 503,
			reason: "NO_EDGE_CONNECTED"},
		{name: "no such path", method: "GET", path: "/v1/account", status: 404, reason: "NO_SUCH_PATH"},
		{name: "no such version", method: "GET", path: "/v1", status: 404, reason: "NO_SUCH_PATH"},
		{name: "a path with a slash too many", method: "GET", path: "/v1//accounts", status: 404,
			reason: "NO_SUCH_PATH"},
		{name: "no such method", method: "PUT", path: origin, status: 405, reason: "METHOD_NOT_ALLOWED"},
		{name: "a method that a field asks for", method: "POST", path: "/v1/accounts/acme",
			fields: []string{"X-HTTP-Method-Override", "DELETE", "Content-Type", "application/x-www-form-urlencoded"},
			status: 405,
			reason: "METHOD_NOT_ALLOWED"},
		{name: "a manifest", method: "POST", path: "/v1/accounts/acme:apply?validateOnly=true",
			body: "account: {id: acme}\n", status: 200},
		{name: "a manifest in JSON", method: "POST", path: "/v1/accounts/acme:apply?validateOnly=true",
			body:   `{"account": {"id": "acme"}}`,
			fields: []string{"Content-Type", "application/json"}, status: 200},
		{name: "a manifest that is wrong", method: "POST", path: "/v1/accounts/acme:apply",
			body:   "account: {id: acme}\norigin: []\n",
			fields: []string{"Content-Type", "application/yaml"}, status: 400, reason: "INVALID_MANIFEST",
			says: "line 2, column 1"},
		{name: "a manifest of another account", method: "POST", path: "/v1/accounts/other:apply",
			body: "account: {id: acme}\n", status: 400,
			reason: "INVALID_FIELD", field: "account.id", says: "line 1"},
		{name: "a manifest with an unknown parameter", method: "POST", path: "/v1/accounts/acme:apply?dryRun=true",
			body:   "account: {id: acme}\n",
			status: 400, reason: "UNKNOWN_FIELD", field: "dryRun"},
		{name: "a manifest over an old account", method: "POST", path: "/v1/accounts/acme:apply",
			body:   "account: {id: acme}\n",
			fields: []string{"If-Match", `"1"`}, status: 412, reason: "ETAG_MISMATCH"},
		{name: "an export", method: "GET", path: "/v1/accounts/acme:export", status: 200, has: "manifest.account.id",
			hasIt: "acme"},
		{name: "a token", method: "POST", path: "/v1/tokens?ttl=3600s",
			body: `{"role": "VIEWER", "account": "accounts/acme"}`, status: 201},
		{name: "a parameter that is no number", method: "GET", path: "/v1/accounts?pageSize=ten",
			status: 400, reason: "INVALID_FIELD", field: "pageSize", says: "want a whole number"},
		{name: "a parameter that is too large", method: "GET", path: "/v1/accounts?pageSize=99999999999",
			status: 400, reason: "INVALID_FIELD", field: "pageSize", says: "99999999999 is more than 32 bits have"},
		{name: "a parameter that is neither", method: "DELETE", path: "/v1/accounts/acme?force=maybe",
			status: 400, reason: "INVALID_FIELD", field: "force", says: "want true or false"},
		{name: "a parameter twice", method: "GET", path: "/v1/accounts?pageSize=1&pageSize=2",
			status: 400, reason: "INVALID_FIELD", field: "pageSize", says: "this is given 2 times"},
		{name: "a number for a text", method: "POST", path: "/v1/accounts/acme/origins?originId=wrong",
			body: `{"web": {"baseUrl": 5}}`, status: 400, reason: "INVALID_FIELD", field: "web.baseUrl",
			says: "want a text"},
		{name: "a value that there is not", method: "PATCH", path: "/v1/accounts/acme/urlEndpoints/default",
			body: `{"cache": {"mode": "WRONG"}}`, status: 400, reason: "INVALID_FIELD", field: "cache.mode",
			says: "want one of RESPECT, OVERRIDE"},
		{name: "a text for a list", method: "PATCH", path: "/v1/accounts/acme/urlEndpoints/default",
			body: `{"origins": "legacy"}`, status: 400, reason: "INVALID_FIELD", field: "origins", says: "want a list"},
		{name: "a list for an object", method: "POST", path: "/v1/accounts/acme/origins?originId=wrong",
			body: `{"web": []}`, status: 400, reason: "INVALID_FIELD", field: "web", says: "want an object"},
		{name: "two kinds", method: "POST", path: "/v1/accounts/acme/origins?originId=wrong",
			body:   `{"web": {"baseUrl": "http://a.example"}, "s3": {"bucket": "b"}}`,
			status: 400, reason: "INVALID_FIELD", field: "web", says: "s3 and web exclude each other"},
		{name: "encoded content", method: "POST", path: "/v1/accounts?accountId=zipped", body: `{}`,
			fields: []string{"Content-Encoding", "gzip"}, status: 415, reason: "UNSUPPORTED_MEDIA_TYPE"},
		{name: "a parameter with days", method: "POST", path: "/v1/tokens?ttl=1d12h",
			body: `{"role": "VIEWER", "account": "accounts/acme"}`, status: 201},
		{name: "a parameter that is no duration", method: "POST", path: "/v1/tokens?ttl=1w",
			body:   `{"role": "VIEWER", "account": "accounts/acme"}`,
			status: 400, reason: "INVALID_FIELD", field: "ttl", says: "write it like 30s, 10m, 12h or 1d"},
		{name: "a field with days", method: "PATCH", path: "/v1/accounts/acme/urlEndpoints/default",
			body: `{"description": "1d", "cache": {"defaultTtl": "1d"}}`, status: 200,
			has: "urlEndpoint.cache.defaultTtl", hasIt: "86400s"},
		{name: "a field that is no duration", method: "PATCH", path: "/v1/accounts/acme/urlEndpoints/default",
			body: `{"cache": {"defaultTtl": "soon"}}`, status: 400, reason: "INVALID_FIELD",
			field: "cache.defaultTtl", says: `"soon" is no duration`},
		{name: "who is it", method: "GET", path: "/v1:whoAmI", status: 200, has: "token.role", hasIt: "ROOT"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := *a
			a.t = t
			got := a.want(test.status, test.method, test.path, test.body, test.fields...)
			if test.status >= 400 && (got.reason() != test.reason || test.field != "" && got.field() != test.field) {
				t.Errorf("reason %q at %q, want %q at %q: %s", got.reason(), got.field(), test.reason, test.field,
					got.text)
			}
			if !strings.Contains(got.text, strings.ReplaceAll(test.says, `"`, `\"`)) {
				t.Errorf("%s does not say %q", got.text, test.says)
			}
			if test.location != "" && got.fields.Get("Location") != test.location {
				t.Errorf("Location %q, want %q", got.fields.Get("Location"), test.location)
			}
			if test.has != "" {
				if value, _ := got.at(strings.Split(test.has, ".")...).(string); value != test.hasIt {
					t.Errorf("%s is %q, want %q: %s", test.has, value, test.hasIt, got.text)
				}
			}
		})
	}
}

// TestRESTEtags holds that nobody writes over what he has not seen.
func TestRESTEtags(t *testing.T) {
	r := start(t, loopbackConfig(t.TempDir()))
	a := apiOf(t, r)
	a.created()
	const origin = "/v1/accounts/acme/origins/legacy"
	read := a.want(200, "GET", origin, "")
	etag := read.fields.Get("ETag")
	if in, _ := read.at("origin", "etag").(string); etag == "" || in != etag {
		t.Fatalf("ETag %q, and in the resource %q", etag, in)
	}
	a.want(304, "GET", origin, "", "If-None-Match", etag)
	a.want(200, "GET", origin, "", "If-None-Match", `"0"`)
	written := a.want(200, "PATCH", origin, `{"displayName": "Old shop"}`, "If-Match", etag)
	if next := written.fields.Get("ETag"); next == etag || next == "" {
		t.Errorf("after a write the ETag is %q, before it %q", next, etag)
	}
	a.want(412, "PATCH", origin, `{"displayName": "Mine"}`, "If-Match", etag)
	a.want(412, "PATCH", origin, `{"displayName": "Mine", "etag": `+quoted(t, etag)+`}`)
	a.want(400, "PATCH", origin, `{"displayName": "Mine", "etag": "\"7\""}`, "If-Match", etag)
	if name, _ := a.want(200, "GET", origin, "").at("origin", "displayName").(string); name != "Old shop" {
		t.Errorf("the name is %q", name)
	}
}

func quoted(t *testing.T, text string) string {
	t.Helper()
	out, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestRESTCallers holds that REST knows whom it serves, as gRPC does.
func TestRESTCallers(t *testing.T) {
	r := start(t, loopbackConfig(t.TempDir()))
	root := apiOf(t, r)
	root.created()
	root.want(201, "POST", "/v1/accounts?accountId=other", `{}`)
	made := root.want(201, "POST", "/v1/tokens", `{"role": "VIEWER", "account": "accounts/acme"}`)
	text, _ := made.at("text").(string)
	name, _ := made.at("token", "name").(string)
	viewer := *root
	viewer.token = "Bearer " + text
	nobody := *root
	nobody.token = ""

	if got := nobody.want(
		401, "GET", "/v1/accounts", "",
	); got.fields.Get("WWW-Authenticate") != `Bearer realm="edgewalk"` {
		t.Errorf("WWW-Authenticate: %q", got.fields.Get("WWW-Authenticate"))
	}
	for _, wrong := range []string{
		"Bearer x", "Basic cm9vdDp4", "Bearer " + strings.Repeat("x", 20_000), "Bearer \xff",
	} {
		nobody.token = wrong
		got := nobody.want(401, "GET", "/v1/accounts/acme", "")
		if got.reason() != "TOKEN_REQUIRED" || !strings.Contains(got.fields.Get("WWW-Authenticate"), "invalid_token") {
			t.Errorf("%.20q: %s %v", wrong, got.text, got.fields)
		}
	}
	nobody.token = ""
	// No field of a request can stand for a token, or make a call look like another's.
	nobody.want(401, "GET", "/v1/accounts/acme", "", "Grpc-Metadata-Authorization", root.token)
	for _, path := range []string{"/v1/accounts/acme/mediaFiles/a.txt", "/v1/accounts/acme:apply"} {
		method := "PUT"
		if strings.HasSuffix(path, ":apply") {
			method = "POST"
		}
		nobody.want(401, method, path, "account: {id: acme}")
		if got := viewer.want(403, method, path, "account: {id: acme}"); got.reason() != "PERMISSION_DENIED" {
			t.Errorf("%s: %s", path, got.text)
		}
	}
	viewer.want(200, "GET", "/v1/accounts/acme/origins/legacy", "")
	viewer.want(403, "GET", "/v1/accounts/other", "")
	viewer.want(403, "DELETE", "/v1/accounts/acme/origins/legacy", "")
	viewer.want(403, "GET", "/v1/edges", "")

	events := root.want(200, "GET", "/v1/accounts/acme/events", "")
	if !strings.Contains(events.text, `"peer": "127.0.0.1:`) {
		t.Errorf("the audit does not tell where writes come from: %s", events.text)
	}

	root.want(200, "DELETE", "/v1/"+name, "")
	viewer.want(401, "GET", "/v1/accounts/acme/origins/legacy", "")
}
