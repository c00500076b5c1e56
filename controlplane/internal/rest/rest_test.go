package rest

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// recorder is a connection that answers each call with an empty message.
type recorder struct{ called string }

func (r *recorder) Invoke(_ context.Context, method string, _, _ any, _ ...grpc.CallOption) error {
	r.called = method
	return nil
}

func (r *recorder) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, fmt.Errorf("no streams")
}

// byHand are the paths that other code than the generated one serves.
var byHand = map[string]bool{
	"GET /v1/{name=accounts/*/mediaFiles/**}": true,
	"POST /v1/{name=accounts/*}:apply":        true,
}

// TestEveryMethod holds that each method that is not a stream can be called over HTTP, and that a
// request by each of its rules calls that method and no other.
func TestEveryMethod(t *testing.T) {
	all := bindings()
	ruled := make(map[protoreflect.FullName]bool)
	for _, b := range all {
		ruled[b.method.FullName()] = true
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("edgewalk.admin.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				if !m.IsStreamingClient() && !m.IsStreamingServer() && !ruled[m.FullName()] {
					t.Errorf("%s has no google.api.http rule, so that it cannot be called over REST", m.FullName())
				}
			}
		}
		return true
	})
	conn := new(recorder)
	h, err := New(conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	variable := regexp.MustCompile(`\{[^}=]*(=?)([^}]*)\}`)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		b := all[key]
		if byHand[key] {
			continue
		}
		path := variable.ReplaceAllStringFunc(b.pattern, func(v string) string {
			parts := variable.FindStringSubmatch(v)
			if parts[1] == "" {
				return "x"
			}
			return strings.ReplaceAll(strings.ReplaceAll(parts[2], "**", "x/y"), "*", "x")
		})
		if strings.Contains(path, "mediaFiles/") && servesBytes(b.verb) {
			t.Errorf("%s would be served by hand", key)
		}
		conn.called = ""
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), b.verb, path, nil))
		want := fmt.Sprintf("/%s/%s", b.method.Parent().FullName(), b.method.Name())
		if conn.called != want {
			t.Errorf("%s %s calls %q, want %q: %d %s", b.verb, path, conn.called, want, w.Code, w.Body)
		}
	}
}

// TestStatuses holds that the documentation lists each reason of an error with its status.
func TestStatuses(t *testing.T) {
	source, err := os.ReadFile("../adminsvc/errors.go")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../../docs/rest.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| ([0-9]+) \\|").FindAllStringSubmatch(
		string(text), -1,
	) {
		documented[row[1]] = row[2]
	}
	byName := make(map[string]codes.Code)
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		byName[c.String()] = c
	}
	known := regexp.MustCompile(`\{codes\.(\w+), "([A-Z_]+)"\}`).FindAllStringSubmatch(string(source), -1)
	if len(known) < 30 {
		t.Fatalf("found only %d reasons", len(known))
	}
	for _, k := range known {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/accounts", nil)
		writeError(w, r, refused(byName[k[1]], k[2], "text"))
		if got := documented[k[2]]; got != fmt.Sprint(w.Code) {
			t.Errorf("docs/rest.md tells %q as %q, and it is %d", k[2], got, w.Code)
		}
		delete(documented, k[2])
	}
	for _, own := range []string{
		reasonTooLarge, reasonRange, "UNSUPPORTED_MEDIA_TYPE", "NOT_ACCEPTABLE", "CONTENT_TIMEOUT", "STOPPING",
		"NO_SUCH_PATH", "METHOD_NOT_ALLOWED", "CROSS_SITE", "CERTIFICATE_REQUIRED", "UNKNOWN_HOST",
	} {
		if documented[own] == "" {
			t.Errorf("docs/rest.md does not tell of %s", own)
		}
		delete(documented, own)
	}
	for reason := range documented {
		t.Errorf("docs/rest.md tells of %s, which there is not", reason)
	}
}

func TestMediaPath(t *testing.T) {
	for path, want := range map[string][2]string{
		"accounts/acme/mediaFiles/a.png":           {"acme", "a.png"},
		"accounts/acme/mediaFiles/a b/ü+.png":      {"acme", "a b/ü+.png"},
		"accounts/acme/mediaFiles//a":              {"acme", "/a"},
		"accounts/acme/mediaFiles/a/mediaFiles/b":  {"acme", "a/mediaFiles/b"},
		"accounts/acme/mediaFiles/":                {},
		"accounts/acme/mediaFiles":                 {},
		"accounts/acme/origins/mediaFiles/mediaFi": {},
		"accounts/acme/origins/x/mediaFiles/y":     {},
		"accounts//mediaFiles/y":                   {},
	} {
		account, file, ok := mediaPath(path)
		if !ok {
			account, file = "", ""
		}
		if account != want[0] || file != want[1] {
			t.Errorf("%s is %q of %q, want %q of %q", path, file, account, want[1], want[0])
		}
	}
}
