package controlplane

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	// What is called.
	_ "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// withoutAnswer are the methods of which only errors are compared: two calls have two answers, or
// the first leaves the second nothing to do, or they ask others.
var withoutAnswer = []string{
	"CheckCustomDomain", "CreateJoinToken", "CreatePurge", "CreateToken", "FreezeEdges", "RenewCertificate",
	"RevokeToken", "RotateEdgeAuthority", "UnfreezeEdges", "UploadCertificate",
}

// contents are resources in requests, by their type.
var contents = map[protoreflect.Name]string{
	"Account":      `{"displayName": "x"}`,
	"Origin":       `{"web": {"baseUrl": "http://x.example"}}`,
	"UrlEndpoint":  `{"description": "x"}`,
	"CustomDomain": `{"domain": "new.example.com"}`,
	"Purge":        `{"prefix": "/x"}`,
	"Token":        `{"role": "VIEWER", "account": "accounts/none"}`,
	"MediaFile":    `{"contentType": "text/plain; charset=utf-8"}`,
	"Manifest":     `{"account": {"id": "acme"}}`,
}

// TestRESTIsGRPC calls each method over both, with what there is and what there is not, and holds
// that answers and errors are the same.
func TestRESTIsGRPC(t *testing.T) {
	r := start(t, loopbackConfig(t.TempDir()))
	a := apiOf(t, r)
	a.created()
	a.want(201, "POST", "/v1/accounts/acme/customDomains?customDomainId=img.example.com", `{"domain": "img.example.com"}`)
	a.want(201, "PUT", "/v1/accounts/acme/mediaFiles/a/b.txt", "hello")
	made := a.want(201, "POST", "/v1/accounts/acme/purges", `{"prefix": "/a"}`)
	purge, _ := made.at("purge", "id").(string)
	there := map[string]string{
		"accounts": "acme", "origins": "legacy", "urlEndpoints": "default", "customDomains": "img.example.com",
		"mediaFiles": "a/b.txt", "purges": purge, "edges": "none", "tokens": "none",
	}
	ctx := with(t, t.Context(), r.cfg.DataDir, "root")
	conn := dial(t, r.Addresses().Admin, insecure.NewCredentials())

	answers, failures := 0, 0
	protoregistry.GlobalFiles.RangeFilesByPackage("edgewalk.admin.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				if m.IsStreamingClient() || m.IsStreamingServer() {
					continue
				}
				for _, ids := range []map[string]string{{}, there} {
					if len(ids) > 0 && slices.Contains(withoutAnswer, string(m.Name())) {
						continue
					}
					if len(ids) == 0 && (m.Name() == "RotateEdgeAuthority" || m.Name() == "CreateJoinToken") {
						continue // there is nothing that is not there
					}
					c := both{m: m, ids: ids, req: dynamicpb.NewMessage(m.Input())}
					t.Run(fmt.Sprintf("%s/%t", m.Name(), len(ids) > 0), func(t *testing.T) {
						api := *a
						api.t = t
						c.compare(t, ctx, conn.Invoke, &api, &answers, &failures)
					})
				}
			}
		}
		return true
	})
	if answers < 20 || failures < 20 {
		t.Errorf("only %d answers and %d errors were compared", answers, failures)
	}
}

// invoker makes a call over gRPC.
type invoker func(ctx context.Context, method string, req, resp any, opts ...grpc.CallOption) error

// both is a call to be made over REST and gRPC.
type both struct {
	m   protoreflect.MethodDescriptor
	ids map[string]string // of what there is, by collection; `none` for another
	req *dynamicpb.Message
}

func (c both) compare(
	t *testing.T, ctx context.Context, invoke invoker, a *api, answers, failures *int,
) {
	method, path, body := c.request(t)
	over := a.do(method, path, body, "Accept", "application/json")
	resp := dynamicpb.NewMessage(c.m.Output())
	err := invoke(ctx, fmt.Sprintf("/%s/%s", c.m.Parent().FullName(), c.m.Name()), c.req, resp)
	if err == nil {
		*answers++
		if over.status >= 300 {
			t.Fatalf("%s %s: %d, and gRPC answers: %s", method, path, over.status, over.text)
		}
		got := dynamicpb.NewMessage(c.m.Output())
		if err := protojson.Unmarshal([]byte(over.text), got); err != nil {
			t.Fatal(err)
		}
		clearTimes(got)
		clearTimes(resp)
		if !proto.Equal(got, resp) {
			t.Errorf("REST answers\n%s\ngRPC\n%s", protojson.Format(got), protojson.Format(resp))
		}
		return
	}
	*failures++
	want := status.Convert(err)
	got := new(spb.Status)
	if err := protojson.Unmarshal([]byte(over.text), got); err != nil {
		t.Fatalf("%s %s: %d %s: %v, and gRPC fails with %v", method, path, over.status, over.text, err, want)
	}
	if got.GetCode() != int32(want.Code()) || got.GetMessage() != want.Message() ||
		!proto.Equal(info(status.FromProto(got)), info(want)) {
		t.Errorf("%s %s fails with\n%s\ngRPC with\n%s", method, path, protojson.Format(got),
			protojson.Format(want.Proto()))
	}
	if info(want) == nil {
		t.Error("the error has no ErrorInfo")
	}
}

func info(s *status.Status) *errdetails.ErrorInfo {
	for _, d := range s.Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			return i
		}
	}
	return nil
}

// clearTimes clears what is different at another time. The revision of an answer is, because the
// control plane writes by itself too.
func clearTimes(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Name() == "size_bytes" && m.Descriptor().Name() == "EtcdMember": // grows by what is written
			m.Clear(f)
		case f.Name() == "revision" || strings.HasSuffix(string(f.Name()), "_revision"):
			m.Clear(f)
		case f.Message() == nil || f.IsMap():
		case f.Message().FullName() == "google.protobuf.Timestamp":
			m.Clear(f)
		case f.IsList():
			for i := range v.List().Len() {
				clearTimes(v.List().Get(i).Message())
			}
		default:
			clearTimes(v.Message())
		}
		return true
	})
}

// request fills the message, and returns the HTTP request that its rule makes of it.
func (c both) request(t *testing.T) (method, path, body string) {
	t.Helper()
	rule, _ := proto.GetExtension(c.m.Options(), annotations.E_Http).(*annotations.HttpRule)
	var pattern string
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		method, pattern = http.MethodGet, p.Get
	case *annotations.HttpRule_Post:
		method, pattern = http.MethodPost, p.Post
	case *annotations.HttpRule_Patch:
		method, pattern = http.MethodPatch, p.Patch
	case *annotations.HttpRule_Delete:
		method, pattern = http.MethodDelete, p.Delete
	default:
		t.Fatal("there is no rule")
	}
	fields := c.m.Input().Fields()
	content := fields.ByName(protoreflect.Name(rule.GetBody()))
	query := make(url.Values)
	set := func(name, text string) {
		f := fields.ByName(protoreflect.Name(name))
		if f == nil {
			return
		}
		value := protoreflect.ValueOfString(text)
		if f.Kind() == protoreflect.BoolKind {
			value = protoreflect.ValueOfBool(true)
		}
		c.req.Set(f, value)
		query.Set(f.JSONName(), text)
	}
	if content != nil {
		inside := contents[content.Message().Name()]
		if err := protojson.Unmarshal([]byte(inside), c.req.Mutable(content).Message().Interface()); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(c.m.Name()), "Create") {
			set(string(content.Name())+"_id", "new")
		}
		body = inside
	}
	set("validate_only", "true")
	switch c.m.Name() {
	case "Explain":
		c.json(t, `{"url": "http://localhost/acme/a.jpg"}`)
	case "WaitApplied":
		c.json(t, `{"revision": "1", "minEdges": 0, "timeout": "20s"}`)
	case "ApplyManifest": // is sent as text
		c.req.Clear(content)
		c.json(t, `{"text": `+quoted(t, body)+`}`)
	case "FreezeEdges":
		c.json(t, `{"revision": "1000000"}`)
	case "UnfreezeEdges":
		c.json(t, `{"region": "none"}`)
	case "DiffRevisions":
		c.json(t, `{"from": "1"}`)
		query.Set("from", "1")
	case "Rollback":
		c.json(t, `{"revision": "1", "validateOnly": true}`)
	case "UploadCertificate":
		c.json(t, `{"certificatePem": "x", "privateKeyPem": "x"}`)
	case "CreateCustomDomain":
		c.req.Clear(fields.ByName("custom_domain_id"))
		query.Del("customDomainId")
	}
	if rule.GetBody() == "*" {
		text, err := protojson.Marshal(c.req)
		if err != nil {
			t.Fatal(err)
		}
		body, query = string(text), nil
	}
	return method, c.path(pattern) + "?" + query.Encode(), body
}

// json adds fields to the message.
func (c both) json(t *testing.T, text string) {
	t.Helper()
	more := dynamicpb.NewMessage(c.m.Input())
	if err := protojson.Unmarshal([]byte(text), more); err != nil {
		t.Fatal(err)
	}
	proto.Merge(c.req, more)
}

// path fills the variables of a pattern, and the fields that they are.
func (c both) path(pattern string) string {
	before, rest, ok := strings.Cut(pattern, "{")
	if !ok {
		return pattern
	}
	inside, after, _ := strings.Cut(rest, "}")
	name, form, named := strings.Cut(inside, "=")
	value := "none"
	if named {
		parts := strings.Split(form, "/")
		for i := 1; i < len(parts); i += 2 {
			if parts[i] = c.ids[parts[i-1]]; parts[i] == "" {
				parts[i] = "none"
			}
		}
		value = strings.Join(parts, "/")
	}
	m := protoreflect.Message(c.req)
	path := strings.Split(name, ".")
	for _, outer := range path[:len(path)-1] {
		m = m.Mutable(m.Descriptor().Fields().ByName(protoreflect.Name(outer))).Message()
	}
	m.Set(m.Descriptor().Fields().ByName(protoreflect.Name(path[len(path)-1])), protoreflect.ValueOfString(value))
	return before + value + c.path(after)
}
