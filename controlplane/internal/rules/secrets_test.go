package rules

import (
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// everyKindFilled makes one origin of each kind, with "x" in every string, found by reflection so
// that new fields are too.
func everyKindFilled() []*topologyv1.Origin {
	var origins []*topologyv1.Origin
	kinds := (&topologyv1.Origin{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range kinds.Len() {
		o := &topologyv1.Origin{RequestHeaders: []*topologyv1.RequestHeader{{Name: "x", SecretValue: "x"}}}
		kind := o.ProtoReflect().Mutable(kinds.Get(i)).Message()
		fields := kind.Descriptor().Fields()
		for j := range fields.Len() {
			if f := fields.Get(j); f.Kind() == protoreflect.StringKind && !f.IsList() {
				kind.Set(f, protoreflect.ValueOfString("x"))
			}
		}
		origins = append(origins, o)
	}
	return origins
}

// redacted finds a field that has a value and is marked debug_redact.
func redacted(m protoreflect.Message) (found protoreflect.FullName) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if options, ok := f.Options().(*descriptorpb.FieldOptions); ok && options.GetDebugRedact() {
			found = f.FullName()
		}
		switch {
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				if inner := redacted(v.List().Get(i).Message()); inner != "" {
					found = inner
				}
			}
		case f.Message() != nil && !f.IsMap():
			if inner := redacted(v.Message()); inner != "" {
				found = inner
			}
		}
		return found == ""
	})
	return found
}

func TestMergeSecrets(t *testing.T) {
	t.Parallel()
	type m = map[string]string
	s3 := func(bucket string) *topologyv1.Origin { return s3Origin(&topologyv1.S3Origin{Bucket: bucket}) }
	azure := func() *topologyv1.Origin {
		return &topologyv1.Origin{Kind: &topologyv1.Origin_AzureBlob{AzureBlob: &topologyv1.AzureBlobOrigin{
			AccountName: "a", Container: "c",
		}}}
	}
	web := func(baseURL, header, value string) *topologyv1.Origin {
		o := webOrigin(baseURL)
		o.RequestHeaders = []*topologyv1.RequestHeader{{Name: header, Value: value}}
		return o
	}
	const key = "request_headers[x-key].secret_value"
	for _, tt := range []struct {
		name          string
		before, next  *topologyv1.Origin
		stored, given m
		cleared       string
		want          m
		required      []string
	}{
		{"created", nil, s3("b"), nil, m{topology.SecretS3Key: "1"}, "", m{topology.SecretS3Key: "1"}, nil},
		{"empty keeps", s3("b"), s3("b"), m{topology.SecretS3Key: "1"}, nil, "", m{topology.SecretS3Key: "1"}, nil},
		{"given replaces", s3("b"), s3("b"), m{topology.SecretS3Key: "1"}, m{topology.SecretS3Key: "2"}, "",
			m{topology.SecretS3Key: "2"}, nil},
		{"empty and named clears", s3("b"), s3("b"), m{topology.SecretS3Key: "1"}, nil, topology.SecretS3Key, m{}, nil},
		{"another bucket needs it again", s3("b"), s3("c"), m{topology.SecretS3Key: "1"}, nil, "", m{},
			[]string{topology.SecretS3Key}},
		{"another bucket with it", s3("b"), s3("c"), m{topology.SecretS3Key: "1"}, m{topology.SecretS3Key: "1"}, "",
			m{topology.SecretS3Key: "1"}, nil},
		{"another bucket without it", s3("b"), s3("c"), m{topology.SecretS3Key: "1"}, nil, topology.SecretS3Key, m{},
			nil},
		{"another bucket, nothing stored", s3("b"), s3("c"), nil, nil, "", m{}, nil},
		{"another kind forgets", s3("b"), webOrigin("http://h"), m{topology.SecretS3Key: "1"}, nil, "", m{}, nil},
		{"one credential of Azure replaces the other", azure(), azure(), m{topology.SecretSASToken: "1"},
			m{topology.SecretAccountKey: "2"}, "", m{topology.SecretAccountKey: "2"}, nil},
		{
			"two credentials of Azure are for Check", azure(), azure(), nil,
			m{topology.SecretSASToken: "1", topology.SecretAccountKey: "2"}, "",
			m{topology.SecretSASToken: "1", topology.SecretAccountKey: "2"}, nil,
		},
		{"header keeps, in any case", web("http://h", "X-Key", ""), web("http://h/a", "x-KEY", ""), m{key: "1"}, nil,
			"", m{key: "1"}, nil},
		{"header made public forgets", web("http://h", "X-Key", ""), web("http://h", "X-Key", "open"), m{key: "1"}, nil,
			"", m{}, nil},
		{"header dropped forgets", web("http://h", "X-Key", ""), webOrigin("http://h"), m{key: "1"}, nil, "", m{}, nil},
		{"header at another host", web("http://h", "X-Key", ""), web("http://g", "X-Key", ""), m{key: "1"}, nil, "",
			m{}, []string{key}},
		{"header of another kind", web("http://h", "X-Key", ""), func() *topologyv1.Origin {
			o := s3("b")
			o.RequestHeaders = []*topologyv1.RequestHeader{{Name: "X-Key"}}
			return o
		}(), m{key: "1"}, nil, "", m{}, []string{key}},
	} {
		merged, required := MergeSecrets(tt.before, tt.stored, tt.next, tt.given,
			func(path string) bool { return path == tt.cleared })
		if !maps.Equal(merged, tt.want) || !slices.Equal(required, tt.required) {
			t.Errorf("%s: %v, required %v; want %v and %v", tt.name, merged, required, tt.want, tt.required)
		}
	}
	if got := SecretsSet(m{"b": "1", "a": "2", "c": ""}); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("set are %v", got)
	}
}

func TestTargetChanged(t *testing.T) {
	t.Parallel()
	proxy := func(hosts ...string) *topologyv1.Origin {
		return &topologyv1.Origin{Kind: &topologyv1.Origin_WebProxy{WebProxy: &topologyv1.WebProxyOrigin{
			AllowedHosts: hosts,
		}}}
	}
	s3 := func(change func(*topologyv1.S3Origin)) *topologyv1.Origin {
		s3 := &topologyv1.S3Origin{Bucket: "b", Endpoint: "http://h"}
		change(s3)
		return s3Origin(s3)
	}
	azure := func(account, container, endpoint string) *topologyv1.Origin {
		return &topologyv1.Origin{Kind: &topologyv1.Origin_AzureBlob{AzureBlob: &topologyv1.AzureBlobOrigin{
			AccountName: account, Container: container, Endpoint: endpoint,
		}}}
	}
	gcs := func(bucket, endpoint string) *topologyv1.Origin {
		return &topologyv1.Origin{Kind: &topologyv1.Origin_Gcs{Gcs: &topologyv1.GcsOrigin{
			Bucket: bucket, Endpoint: endpoint,
		}}}
	}
	akeneo := func(url, client string) *topologyv1.Origin {
		return &topologyv1.Origin{Kind: &topologyv1.Origin_Akeneo{Akeneo: &topologyv1.AkeneoOrigin{
			BaseUrl: url, ClientId: client,
		}}}
	}
	site := func(change func(*topologyv1.WebOrigin)) *topologyv1.Origin {
		o := webOrigin("https://h")
		change(o.GetWeb())
		return o
	}
	same := s3(func(*topologyv1.S3Origin) {})
	for _, tt := range []struct {
		name         string
		before, next *topologyv1.Origin
		want         bool
	}{
		{"web path", webOrigin("http://h/a"), webOrigin("http://H/b"), false},
		{"web host", webOrigin("http://h/a"), webOrigin("http://g/a"), true},
		{"web port", webOrigin("http://h/a"), webOrigin("http://h:81/a"), true},
		{"web scheme", webOrigin("https://h"), webOrigin("http://h"), true},
		{"web host header", webOrigin("https://h"), site(func(w *topologyv1.WebOrigin) { w.HostHeader = "g" }), true},
		{"web host of clients", webOrigin("https://h"),
			site(func(w *topologyv1.WebOrigin) { w.ForwardHostHeader = true }), true},
		{"web TLS name", webOrigin("https://h"), site(func(w *topologyv1.WebOrigin) { w.TlsServerName = "g" }), true},
		{"web CAs", webOrigin("https://h"), site(func(w *topologyv1.WebOrigin) { w.CaPem = caPEM }), true},
		{"web checking switched off", webOrigin("https://h"),
			site(func(w *topologyv1.WebOrigin) { w.TlsVerify = proto.Bool(false) }), true},
		{"web checking spelled out", webOrigin("https://h"),
			site(func(w *topologyv1.WebOrigin) { w.TlsVerify = proto.Bool(true) }), false},
		{"web client address", webOrigin("https://h"), site(func(w *topologyv1.WebOrigin) { w.ForwardClientIp = true }),
			false},
		{"kind", webOrigin("http://h"), same, true},
		{"s3 endpoint", same, s3(func(o *topologyv1.S3Origin) { o.Endpoint = "http://g" }), true},
		{"s3 bucket", same, s3(func(o *topologyv1.S3Origin) { o.Bucket = "c" }), true},
		{"s3 region, prefix, key id", same,
			s3(func(o *topologyv1.S3Origin) { o.Region, o.Prefix, o.AccessKeyId = "r", "p", "k" }), false},
		{"gcs bucket", gcs("a", ""), gcs("b", ""), true},
		{"gcs endpoint", gcs("a", ""), gcs("a", "http://h"), true},
		{"azure account", azure("a", "c", ""), azure("b", "c", ""), true},
		{"azure container", azure("a", "c", ""), azure("a", "d", ""), true},
		{"azure endpoint", azure("a", "c", ""), azure("a", "c", "http://h"), true},
		{"akeneo host", akeneo("https://h", ""), akeneo("https://g", ""), true},
		{"akeneo client", akeneo("https://h", ""), akeneo("https://h", "c"), false},
		{"proxy with a host more", proxy("a"), proxy("a", "b"), true},
		{"proxy with a host less", proxy("a", "b"), proxy("B"), false},
	} {
		if got := TargetChanged(tt.before, tt.next); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if !proto.Equal(same, s3(func(*topologyv1.S3Origin) {})) {
		t.Error("an argument is changed")
	}
}

// A change of any field that says where requests go is a change of the target, or the secrets of an
// origin would follow it to another host. The names are those that kinds have for such fields.
func TestEveryKindHasATarget(t *testing.T) {
	t.Parallel()
	names := []protoreflect.Name{
		"base_url", "endpoint", "bucket", "container", "account_name", "allowed_hosts", "host_header",
		"tls_server_name",
	}
	for _, before := range everyKindFilled() {
		kind, targets := topology.KindOf(before), 0
		field := before.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(kind))
		for _, name := range names {
			f := field.Message().Fields().ByName(name)
			if f == nil {
				continue
			}
			targets++
			next, value := proto.CloneOf(before), protoreflect.ValueOfString("https://other.example")
			if f.IsList() {
				next.ProtoReflect().Mutable(field).Message().Mutable(f).List().Append(value)
			} else {
				next.ProtoReflect().Mutable(field).Message().Set(f, value)
			}
			if !TargetChanged(before, next) {
				t.Errorf("another %s.%s keeps the secrets", kind, name)
			}
		}
		if targets == 0 {
			t.Errorf("%s has no field that says where requests go: add it to reach, and its name here", kind)
		}
	}
}
