package topology

import (
	"strings"
	"testing"
)

func TestCanonicalHost(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a.", 126) + "b" // 253 bytes
	for _, tt := range []struct{ raw, want string }{
		{"example.com", "example.com"},
		{"EXAMPLE.Com", "example.com"},
		{"example.com:8080", "example.com"},
		{"example.com:", "example.com"},
		{"example.com.", "example.com"},
		{"example.com.:443", "example.com"},
		{"localhost", "localhost"},
		{"my_host.example.com", "my_host.example.com"},
		{"r3---sn.example.com", "r3---sn.example.com"},
		{"127.0.0.1:80", "127.0.0.1"},
		{"[::1]", "[::1]"},
		{"[0:0::1]:8080", "[::1]"},
		{"[2001:DB8::A]", "[2001:db8::a]"},
		{"Bücher.example", "xn--bcher-kva.example"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"straße.example", "xn--strae-oqa.example"}, // not strasse: non-transitional
		{"example。com", "example.com"},
		{"example.com。", "example.com"},
		{"ｅｘａｍｐｌｅ.com", "example.com"},
		{long, long},
		{long + ".", long},
	} {
		got, err := CanonicalHost(tt.raw)
		if err != nil || got != tt.want {
			t.Errorf("CanonicalHost(%q) = %q, %v; want %q", tt.raw, got, err, tt.want)
		}
	}
	for _, raw := range []string{
		"", ".", ":80", "a..b", ".a", "a..", "a b", "a/b", "user@host", "a%2eb", "a?b", "host:port", "host:65536",
		"host:1:2", "::1", "[::1", "[::1]x", "[::1]:x", "[127.0.0.1]", "[fe80::1%25eth0]", "[]", "xn--a.example",
		"a\x00b", "a\nb", "\xff.com", "*.example.com", strings.Repeat("a", 64) + ".com",
		strings.Repeat("a.", 127) + "b",
	} {
		if got, err := CanonicalHost(raw); err == nil {
			t.Errorf("CanonicalHost(%q) = %q, want an error", raw, got)
		}
	}
}

func TestCanonicalHostDoesNotCopyWhatIsCanonical(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _, _ = CanonicalHost("images.example.com:8080") }); n != 0 {
		t.Errorf("allocates %v times", n)
	}
}

func FuzzCanonicalHost(f *testing.F) {
	for _, seed := range []string{
		"Example.com:80", "[::1]:8080", "bücher.example.", "xn--bcher-kva.example", "a。b", "ß.de", "１.2.3.4", "a_b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := CanonicalHost(raw)
		if err != nil {
			return
		}
		if again, err := CanonicalHost(got); err != nil || again != got {
			t.Fatalf("%q -> %q -> %q, %v", raw, got, again, err)
		}
		if withPort, err := CanonicalHost(got + ":8080"); err != nil || withPort != got {
			t.Fatalf("%q -> %q, but with a port %q, %v", raw, got, withPort, err)
		}
		if got == "" || strings.HasSuffix(got, ".") || strings.ToLower(got) != got {
			t.Fatalf("%q -> %q", raw, got)
		}
	})
}

func TestCanonicalDomain(t *testing.T) {
	t.Parallel()
	const shared = "cdn.example.net"
	for _, tt := range []struct{ raw, want, id string }{
		{"images.example.com", "images.example.com", "images.example.com"},
		{"IMAGES.Example.com.", "images.example.com", "images.example.com"},
		{"*.Example.com", "*.example.com", "_wildcard.example.com"},
		{"bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"*.bücher.example", "*.xn--bcher-kva.example", "_wildcard.xn--bcher-kva.example"},
		{"_x.example.com", "_x.example.com", "_x.example.com"},
		{"images.localhost", "images.localhost", "images.localhost"},
		{"acme.cdn.example.net", "acme.cdn.example.net", "acme.cdn.example.net"}, // below the shared host
		{"*.cdn.example.net", "*.cdn.example.net", "_wildcard.cdn.example.net"},
		{"1.2.3.example", "1.2.3.example", "1.2.3.example"},
	} {
		got, err := CanonicalDomain(tt.raw, shared)
		if err != nil || got != tt.want {
			t.Errorf("CanonicalDomain(%q) = %q, %v; want %q", tt.raw, got, err, tt.want)
			continue
		}
		if id := DomainID(got); id != tt.id {
			t.Errorf("DomainID(%q) = %q, want %q", got, id, tt.id)
		}
		if name, err := DomainFromID(tt.id); err != nil || name != got {
			t.Errorf("DomainFromID(%q) = %q, %v; want %q", tt.id, name, err, got)
		}
	}
	for _, raw := range []string{
		"", "localhost", "com", "*", "*.", "*.com", "*.localhost", "a.*.com", "**.example.com", "*a.example.com",
		"*.*.example.com", "127.0.0.1", "1.2.3.4.", "[::1]", "::1", "a.0x7f", "cdn.example.net", "CDN.example.net.",
		"example.com:80", "http://example.com", "example.com/a", "-a.example.com", "a-.example.com", "a..com",
		"_wildcard.example.com", strings.Repeat("a.", 127) + "com", "*." + strings.Repeat("a.", 125) + "bc",
	} {
		if got, err := CanonicalDomain(raw, shared); err == nil {
			t.Errorf("CanonicalDomain(%q) = %q, want an error", raw, got)
		}
	}
	for _, id := range []string{
		"", "Images.example.com", "*.example.com", "example.com.", "bücher.example", "_wildcard.com",
	} {
		if got, err := DomainFromID(id); err == nil {
			t.Errorf("DomainFromID(%q) = %q, want an error", id, got)
		}
	}
}

func TestWildcardOf(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"a.example.com": "*.example.com", "a.b.example.com": "*.b.example.com", "localhost": "", "*.example.com": "",
	} {
		if got, ok := WildcardOf(name); got != want || ok != (want != "") {
			t.Errorf("WildcardOf(%q) = %q, %v; want %q", name, got, ok, want)
		}
	}
}

func TestParseSharedHost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ raw, host, port string }{
		{"localhost", "localhost", ""}, {"LOCALHOST:8080", "localhost", "8080"},
		{"cdn.example.net.", "cdn.example.net", ""}, {"[::1]:80", "[::1]", "80"},
	} {
		host, port, err := ParseSharedHost(tt.raw)
		if err != nil || host != tt.host || port != tt.port {
			t.Errorf("ParseSharedHost(%q) = %q, %q, %v", tt.raw, host, port, err)
		}
	}
	if _, _, err := ParseSharedHost("http://x"); err == nil {
		t.Error("a URL is taken for a host")
	}
}

func TestIsLocal(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "a.localhost": true, "a.b.localhost": true, "*.localhost": true,
		"notlocalhost": false, "localhost.example.com": false, "": false, "127.0.0.1": false,
	} {
		if got := IsLocal(host); got != want {
			t.Errorf("IsLocal(%q) is %t", host, got)
		}
	}
}
