package topology

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/internal/cachepolicy"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestCompileFillsDefaults(t *testing.T) {
	t.Parallel()
	s := shop(t)
	a, rejected := Compile(s, nil)
	if len(rejected) > 0 {
		t.Fatalf("rejected %v", rejected)
	}
	if a.ID != "acme" || a.UID != "10-acme" || a.Deleting || a.Default().UID != UID("default", 13) {
		t.Errorf("account %+v, default %+v", a, a.Default())
	}
	o := a.Origin("legacy")
	if o.Connect != 1500*time.Millisecond || o.FirstByte != 10*time.Second || o.Idle != 10*time.Second {
		t.Errorf("timeouts %v, %v, %v", o.Connect, o.FirstByte, o.Idle)
	}
	if o.Breaker != DefaultBreaker {
		t.Errorf("breaker %+v", o.Breaker)
	}
	if got := a.Origin("product-images").Secrets["s3.secret_access_key"]; got != "s" {
		t.Errorf("secret %q", got)
	}
	e := a.Default()
	want := CachePolicy{
		Policy: cachepolicy.Default(), QueryMode: QueryAll,
	}
	if e.Cache.QueryNames = nil; !equalPolicies(e.Cache, want) || e.WalkDeadline != 20*time.Second || e.KeyHost {
		t.Errorf("endpoint %+v", e)
	}
	if len(e.Steps) != 3 || e.Steps[0].Origin != nil || e.Steps[1].Origin.ID != "product-images" ||
		e.Steps[2].Origin.ID != "legacy" {
		t.Errorf("steps %+v", e.Steps)
	}
}

func equalPolicies(a, b CachePolicy) bool {
	names := slices.Equal(a.QueryNames, b.QueryNames)
	a.QueryNames, b.QueryNames = nil, nil
	return names && a.Policy == b.Policy && a.QueryMode == b.QueryMode && a.HonorClientNoCache == b.HonorClientNoCache
}

// A zero that is given is not a default.
func TestCompileKeepsZeros(t *testing.T) {
	t.Parallel()
	s := shop(t)
	put(t, s, Key{Kind: KindURLEndpoints, ID: "zero"}, &topologyv1.UrlEndpoint{Cache: &topologyv1.CachePolicy{
		DefaultTtl: durationpb.New(0), BrowserTtl: durationpb.New(0), NegativeTtl: durationpb.New(0),
		StaleIfError: durationpb.New(0),
	}})
	a, _ := Compile(s, nil)
	if c := a.Endpoint("zero").Cache; c.DefaultTTL != 0 || c.BrowserTTL != 0 || c.NegativeTTL != 0 ||
		c.StaleIfError != 0 {
		t.Errorf("policy %+v", c)
	}
}

func TestCompileJoinsWhatWebOriginsAskFor(t *testing.T) {
	t.Parallel()
	s := shop(t)
	a := webOrigin("http://a.example")
	a.GetWeb().ForwardRequestHeaders = []string{"X-B", "Cookie"}
	b := webOrigin("http://b.example")
	b.GetWeb().ForwardRequestHeaders = []string{"x-b", "X-A"}
	b.GetWeb().ForwardHostHeader = true
	put(t, s, Key{Kind: KindOrigins, ID: "a"}, a)
	put(t, s, Key{Kind: KindOrigins, ID: "b"}, b)
	put(t, s, Key{Kind: KindURLEndpoints, ID: "both"}, &topologyv1.UrlEndpoint{Origins: []string{"a", "b"}})
	account, _ := Compile(s, nil)
	e := account.Endpoint("both")
	if want := []string{"cookie", "x-a", "x-b"}; !slices.Equal(e.ForwardRequestHeaders, want) || !e.KeyHost {
		t.Errorf("forwards %v, key host %v; want %v and true", e.ForwardRequestHeaders, e.KeyHost, want)
	}
}

func TestCompileKeepsTheLastGoodEndpoint(t *testing.T) {
	t.Parallel()
	s := shop(t)
	before, _ := Compile(s, nil)
	before = before.WithMedia((*MediaSet)(nil).With("a", shaOf(1)))

	putAt(t, s, Key{Kind: KindURLEndpoints, ID: "product-images"}, &topologyv1.UrlEndpoint{Origins: []string{"gone"}},
		14, 77)
	put(t, s, Key{Kind: KindURLEndpoints, ID: "new"}, &topologyv1.UrlEndpoint{Origins: []string{"gone"}})
	after, rejected := Compile(s, before)
	if len(rejected) != 2 || rejected[0].Key != "urlEndpoints/acme/new" ||
		rejected[1].Key != "urlEndpoints/acme/product-images" ||
		rejected[1].Revision != 77 || !strings.Contains(rejected[1].Reason, `"gone"`) {
		t.Errorf("rejected %v", rejected)
	}
	if after.Endpoint("product-images") != before.Endpoint("product-images") {
		t.Error("the last good endpoint is lost")
	}
	if e, ok := after.LookupEndpoint("new"); e != nil || !ok {
		t.Error("an endpoint that cannot be used is there, or its identifier is free")
	}
	if after.Default() == nil || after.Media.Len() != 1 {
		t.Error("what can be compiled is lost")
	}

	// A later endpoint of the same id is another one.
	putAt(t, s, Key{Kind: KindURLEndpoints, ID: "product-images"}, &topologyv1.UrlEndpoint{Origins: []string{"gone"}},
		90, 90)
	if again, _ := Compile(s, after); again.Endpoint("product-images") != nil {
		t.Error("an endpoint was taken for its predecessor")
	}
	// So is a later account.
	putAt(t, s, Key{Kind: KindAccounts}, &topologyv1.Account{State: topologyv1.Account_ACTIVE}, 91, 91)
	if again, _ := Compile(s, after); again.Media.Len() != 0 {
		t.Error("an account inherits the media of its predecessor")
	}
	putAt(t, s, Key{Kind: KindAccounts}, nil, 91, 92)
	if gone, _ := Compile(s, after); gone != nil {
		t.Error("an account that does not exist is compiled")
	}
}

func TestCompileRejectsAnUnknownKindOfOrigin(t *testing.T) {
	t.Parallel()
	s := shop(t)
	put(t, s, Key{Kind: KindOrigins, ID: "future"}, &topologyv1.Origin{DisplayName: "a kind of a later version"})
	a, rejected := Compile(s, nil)
	if len(rejected) != 1 || rejected[0].Key != "origins/acme/future" || a.Origin("future") != nil ||
		a.Default() == nil {
		t.Errorf("rejected %v", rejected)
	}
}

// Each change is made to an origin; the hash must change with what decides which bytes a path
// stands for, and with nothing else.
func TestTargetHash(t *testing.T) {
	t.Parallel()
	web := func() *topologyv1.Origin { return webOrigin("https://a.example/base") }
	s3 := func() *topologyv1.Origin {
		return s3Origin(&topologyv1.S3Origin{Bucket: "b", Prefix: "p", Endpoint: "http://e", AccessKeyId: "k"})
	}
	gcs := func() *topologyv1.Origin {
		return &topologyv1.Origin{Kind: &topologyv1.Origin_Gcs{Gcs: &topologyv1.GcsOrigin{Bucket: "b"}}}
	}
	azure := func() *topologyv1.Origin {
		return &topologyv1.Origin{Kind: &topologyv1.Origin_AzureBlob{AzureBlob: &topologyv1.AzureBlobOrigin{
			AccountName: "a", Container: "c",
		}}}
	}
	proxy := func() *topologyv1.Origin {
		return &topologyv1.Origin{
			Kind: &topologyv1.Origin_WebProxy{WebProxy: &topologyv1.WebProxyOrigin{AllowedHosts: []string{
				"a.example", "b.example",
			}}},
		}
	}
	akeneo := func() *topologyv1.Origin {
		return &topologyv1.Origin{Kind: &topologyv1.Origin_Akeneo{Akeneo: &topologyv1.AkeneoOrigin{
			BaseUrl: "https://pim.example",
		}}}
	}
	type origin = topologyv1.Origin
	for _, tt := range []struct {
		name    string
		make    func() *origin
		change  func(*origin)
		changes bool
	}{
		{"web URL", web, func(o *origin) { o.GetWeb().BaseUrl = "https://b.example/base" }, true},
		{"web host flag", web, func(o *origin) { o.GetWeb().ForwardHostHeader = true }, true},
		{"web host", web, func(o *origin) { o.GetWeb().HostHeader = "a.example" }, true},
		{"web TLS name", web, func(o *origin) { o.GetWeb().TlsServerName = "a.example" }, true},
		{"web CAs", web, func(o *origin) { o.GetWeb().CaPem = caPEM }, false},
		{"web checking", web, func(o *origin) { o.GetWeb().TlsVerify = new(bool) }, false},
		{"web client address", web, func(o *origin) { o.GetWeb().ForwardClientIp = true }, false},
		{"web redirects", web, func(o *origin) { o.GetWeb().FollowRedirects = proto.Bool(false) }, false},
		{"web soft 404", web, func(o *origin) { o.GetWeb().HtmlIsMissing = proto.Bool(false) }, false},
		{"name", web, func(o *origin) { o.DisplayName = "x" }, false},
		{"timeouts", web,
			func(o *origin) { o.Timeouts = &topologyv1.OriginTimeouts{Connect: durationpb.New(time.Second)} }, false},
		{"request headers", web,
			func(o *origin) { o.RequestHeaders = []*topologyv1.RequestHeader{{Name: "a", Value: "b"}} }, false},
		{"s3 bucket", s3, func(o *origin) { o.GetS3().Bucket = "c" }, true},
		{"s3 prefix", s3, func(o *origin) { o.GetS3().Prefix = "q" }, true},
		{"s3 region", s3, func(o *origin) { o.GetS3().Region = "eu-west-1" }, true},
		{"s3 region spelled out", s3, func(o *origin) { o.GetS3().Region = "us-east-1" }, false},
		{"s3 endpoint", s3, func(o *origin) { o.GetS3().Endpoint = "http://f" }, true},
		{"s3 path style", s3, func(o *origin) { o.GetS3().ForcePathStyle = true }, true},
		{"s3 escaping", s3, func(o *origin) { o.GetS3().PercentEncodeKeys = true }, true},
		{"s3 credentials", s3, func(o *origin) { o.GetS3().AccessKeyId = "l" }, false},
		{"s3 fields run together", s3, func(o *origin) { o.GetS3().Bucket, o.GetS3().Prefix = "bp", "" }, true},
		{"gcs bucket", gcs, func(o *origin) { o.GetGcs().Bucket = "c" }, true},
		{"gcs prefix", gcs, func(o *origin) { o.GetGcs().Prefix = "c" }, true},
		{"gcs endpoint", gcs, func(o *origin) { o.GetGcs().Endpoint = "http://c" }, true},
		{"gcs credentials", gcs, func(o *origin) { o.GetGcs().ClientEmail = "c" }, false},
		{"azure account", azure, func(o *origin) { o.GetAzureBlob().AccountName = "b" }, true},
		{"azure container", azure, func(o *origin) { o.GetAzureBlob().Container = "b" }, true},
		{"azure prefix", azure, func(o *origin) { o.GetAzureBlob().Prefix = "b" }, true},
		{"azure endpoint", azure, func(o *origin) { o.GetAzureBlob().Endpoint = "http://b" }, true},
		{"proxy hosts", proxy, func(o *origin) { o.GetWebProxy().AllowedHosts = []string{"a.example"} }, true},
		{"proxy hosts in another order", proxy, func(o *origin) { slices.Reverse(o.GetWebProxy().AllowedHosts) },
			false},
		{"akeneo URL", akeneo, func(o *origin) { o.GetAkeneo().BaseUrl = "https://b" }, true},
		{"akeneo credentials", akeneo, func(o *origin) { o.GetAkeneo().ClientId = "b" }, false},
		{"kind", gcs, func(o *origin) { o.Kind = s3Origin(&topologyv1.S3Origin{Bucket: "b"}).Kind }, true},
	} {
		before, after := tt.make(), tt.make()
		tt.change(after)
		x, _ := targetOf(before)
		y, _ := targetOf(after)
		if (x != y) != tt.changes {
			t.Errorf("%s: the hash changes: %v, want %v", tt.name, x != y, tt.changes)
		}
	}
	// Edges keep these hashes on disk.
	if got, _ := targetOf(web()); got != 0xd2d47d386547b5f3 {
		t.Errorf("the hash of a web origin is %#x: edges would revalidate everything after an upgrade", got)
	}
}

func TestWalkVersion(t *testing.T) {
	t.Parallel()
	versions := func(change func(s *AccountState)) []uint64 {
		s := shop(t)
		change(s)
		a, rejected := Compile(s, nil)
		if len(rejected) > 0 {
			t.Fatalf("rejected %v", rejected)
		}
		var all []uint64
		for _, step := range a.Default().Steps {
			all = append(all, step.Version)
		}
		return all
	}
	same := versions(func(*AccountState) {})
	for _, tt := range []struct {
		name   string
		change func(s *AccountState)
		from   int // the first step whose version changes
	}{
		{"nothing", func(*AccountState) {}, 3},
		{"the last origin is retargeted", func(s *AccountState) {
			putAt(t, s, Key{Kind: KindOrigins, ID: "legacy"}, webOrigin("http://127.0.0.1:9009"), 11, 50)
		}, 2},
		{"the last origin is another of the same id", func(s *AccountState) {
			putAt(t, s, Key{Kind: KindOrigins, ID: "legacy"}, webOrigin("http://127.0.0.1:9000"), 50, 50)
		}, 2},
		{"the first origin is retargeted", func(s *AccountState) {
			putAt(t, s, Key{Kind: KindOrigins, ID: "product-images"}, s3Origin(&topologyv1.S3Origin{Bucket: "other"}),
				12, 50)
		}, 1},
		{"the order changes", func(s *AccountState) {
			putAt(t, s, Key{Kind: KindURLEndpoints, ID: "default"},
				&topologyv1.UrlEndpoint{Origins: []string{"legacy", "product-images"}}, 13, 50)
		}, 1},
		{"a step is added behind", func(s *AccountState) {
			put(t, s, Key{Kind: KindOrigins, ID: "more"}, webOrigin("http://127.0.0.1:9002"))
			putAt(t, s, Key{Kind: KindURLEndpoints, ID: "default"},
				&topologyv1.UrlEndpoint{Origins: []string{"product-images", "legacy", "more"}}, 13, 50)
		}, 3},
	} {
		got := versions(tt.change)
		for i := range same {
			if (got[i] == same[i]) != (i < tt.from) {
				t.Errorf("%s: version of step %d is kept: %v", tt.name, i, got[i] == same[i])
			}
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	s := shop(t)
	if err := s.Apply(Record{Key: Key{Kind: KindAccounts, Account: "other"}}); err == nil {
		t.Error("another account's record is applied")
	}
	if err := s.Apply(Record{Key: Key{KindOrigins, "acme", "legacy"}, Value: []byte{0xff}}); err == nil ||
		s.Origins["legacy"].Message.GetWeb() == nil {
		t.Errorf("a broken record is applied: %v", err)
	}
	if err := s.Apply(Record{Key: Key{KindOrigins, "acme", "legacy"}}); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Origins["legacy"]; ok {
		t.Error("a deletion is not one")
	}
}

// The account's limits cut what its endpoints and origins say of times, defaults included, and say
// what its origins may reach.
func TestLimits(t *testing.T) {
	t.Parallel()
	s := shop(t)
	s.Account.Message.Limits = &topologyv1.AccountLimits{
		WalkDeadline: durationpb.New(3 * time.Second), OriginTimeout: durationpb.New(time.Second),
		Fills: proto.Int32(5), Requests: proto.Int32(6), PrivateCidrs: []string{"10.1.0.0/16", "of a later version"},
	}
	s.Endpoints["product-images"].Message.WalkDeadline = durationpb.New(2 * time.Second)
	a, _ := Compile(s, nil)
	if a.MaxFills != 5 || a.MaxRequests != 6 {
		t.Errorf("%d fills and %d requests", a.MaxFills, a.MaxRequests)
	}
	if by, own := a.Endpoint("default").WalkDeadline, a.Endpoint("product-images").WalkDeadline; by != 3*time.Second ||
		own != 2*time.Second {
		t.Errorf("walk deadlines %v and %v, want 3 s and 2 s", by, own)
	}
	if o := a.Origin("legacy"); o.Connect != time.Second || o.FirstByte != time.Second || o.Idle != time.Second {
		t.Errorf("timeouts %v, %v and %v, want 1 s", o.Connect, o.FirstByte, o.Idle)
	}
	if open := a.Origin("legacy").Private; len(open) != 1 || open[0] != netip.MustParsePrefix("10.1.0.0/16") {
		t.Errorf("%v is open to the account", open)
	}
}

// What requests need of an endpoint is ready in plain values, with defaults filled in.
func TestCompileEndpoint(t *testing.T) {
	t.Parallel()
	status := int32(404)
	for _, tt := range []struct {
		name string
		spec *topologyv1.UrlEndpoint
		want Endpoint
	}{
		{"nothing", &topologyv1.UrlEndpoint{}, Endpoint{AnyOrigin: true, Compress: true}},
		{"all", &topologyv1.UrlEndpoint{
			Compress: topologyv1.UrlEndpoint_OFF, OnInconclusive: topologyv1.UrlEndpoint_FAIL, NotFoundPage: "404.html",
			DefaultImage: &topologyv1.DefaultImage{
				Path: "a.png", Status: &status, OnFailure: true, For: topologyv1.DefaultImage_ALL,
			},
			Cors: &topologyv1.Cors{AllowOrigins: []string{"https://a.test"}},
			ResponseHeaders: &topologyv1.ResponseHeaders{
				Set: map[string]string{"x-b": "2", "X-A": "1"}, Remove: []string{"x-powered-by"},
			},
			Cache: &topologyv1.CachePolicy{
				Mode: topologyv1.CachePolicy_MINIMUM, HonorClientNoCache: true,
				Query: &topologyv1.QueryPolicy{Mode: topologyv1.QueryPolicy_NONE},
			},
		}, Endpoint{
			FailOnInconclusive: true, NotFoundPage: "404.html",
			DefaultImage: &DefaultImage{Path: "a.png", Status: 404, OnFailure: true, ForAll: true},
			Origins:      []string{"https://a.test"},
			ResponseHeaders: &ResponseHeaders{
				Set: []HeaderField{{"X-A", "1"}, {"X-B", "2"}}, Remove: []string{"X-Powered-By"},
			},
			Cache: CachePolicy{
				Policy: cachepolicy.Policy{Mode: cachepolicy.Minimum}, QueryMode: QueryNone, HonorClientNoCache: true,
			},
		}},
		{"any origin among others, nobody, a default image of its own status", &topologyv1.UrlEndpoint{
			Cors:         &topologyv1.Cors{AllowOrigins: []string{"https://a.test", "*"}},
			DefaultImage: &topologyv1.DefaultImage{Path: "a.png"},
		},
			Endpoint{
				AnyOrigin: true, Compress: true, Origins: []string{"https://a.test", "*"},
				DefaultImage: &DefaultImage{Path: "a.png", Status: 200},
			}},
		{"no origin", &topologyv1.UrlEndpoint{Cors: &topologyv1.Cors{}}, Endpoint{Compress: true}},
	} {
		got, err := compileEndpoint("e", Stored[*topologyv1.UrlEndpoint]{Message: tt.spec, CreateRevision: 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := tt.want
		mode := want.Cache.Mode
		want.Cache.Policy = cachepolicy.Default()
		want.ID, want.UID, want.Keyed, want.Steps, want.WalkDeadline = got.ID, got.UID, true, got.Steps,
			DefaultWalkDeadline
		want.Cache.Policy.Mode = mode
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("%s:\n%+v, want\n%+v", tt.name, *got, want)
		}
	}
}
