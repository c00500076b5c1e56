package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The main job, on one control plane and two edges. Each part has an account of its own, and asks
// each edge right after the command that has waited for both.
func TestWhatWasAppliedIsServed(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	t.Run("at every edge", func(t *testing.T) {
		for _, part := range []struct {
			name string
			run  func(t *testing.T, f *fleet)
		}{
			{"walk and cache", walkAndCache},
			{"default image", defaultImage},
			{"identifiers and domains", identifiersAndDomains},
			{"media library", mediaLibrary},
			{"purges", purges},
			{"order of origins", orderOfOrigins},
			{"successor", successor},
			{"fleet", fleetIsShown},
			{"explain", explained},
			{"manifest", manifestRoundTrip},
			{"hostile requests", hostileRequests},
			{"web proxy", webProxy},
			{"ambient credentials", ambientCredentials},
			{"unwell origins", unwellOrigins},
		} {
			t.Run(part.name, func(t *testing.T) {
				t.Parallel()
				part.run(t, f)
			})
		}
	})
}

func walkAndCache(t *testing.T, f *fleet) {
	shots := newOrigin(t, map[string]string{"/shots/a.txt": "a of shots", "/shots/both.txt": "both of shots"})
	legacy := newOrigin(t, map[string]string{"/b.txt": "b of legacy", "/both.txt": "both of legacy"})
	began := time.Now()
	out := f.apply(t, fmt.Sprintf(`
account: {id: walk, displayName: Walk}
origins:
  - {id: shots, web: {baseUrl: "%s/shots"}}
  - {id: legacy, web: {baseUrl: "%s"}}
urlEndpoints:
  - {id: default, origins: [shots, legacy]}
`, shots.url, legacy.url))
	f.edges[0].serves(t, "/walk/a.txt", "a of shots")
	t.Logf("apply --wait with 2 edges to the first served byte: %s", time.Since(began).Round(time.Millisecond))
	has(t, "apply", out, "accounts/walk created", "accounts/walk/origins/shots created", "stored at ",
		"applied by 2 of 2 edges")
	for i, e := range f.edges {
		e.serves(t, "/walk/both.txt", "both of shots")
		if r := e.serves(t, "/walk/b.txt", "b of legacy"); r.hit() {
			t.Errorf("first request: %s, want no hit", r)
		}
		if r := e.serves(t, "/walk/b.txt", "b of legacy"); !r.hit() ||
			r.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("second request: %s, header %v, want a hit with nosniff", r, r.header)
		}
		if n := legacy.count("/b.txt"); n != i+1 {
			t.Errorf("%s has served a file twice, and legacy was asked %d times, want %d", e.name, n, i+1)
		}
		e.refuses(t, "/walk/nobody-has-it.txt", 404)
	}
	if n := legacy.count("/both.txt"); n != 0 {
		t.Errorf("legacy was asked %d times for a file that an earlier origin has", n)
	}
}

func defaultImage(t *testing.T, f *fleet) {
	o := newOrigin(t, nil)
	f.do(t, "create", "account", "image")
	f.upload(t, "image", "/placeholder.svg", "<svg>nothing</svg>")
	f.apply(t, fmt.Sprintf(`
account: {id: image}
origins: [{id: o, web: {baseUrl: "%s"}}]
urlEndpoints:
  - {id: default, origins: [o], defaultImage: {path: /placeholder.svg}}
  - {id: strict, origins: [o], defaultImage: {path: /placeholder.svg, status: 404}}
  - {id: bare, origins: [o]}
`, o.url))
	for _, e := range f.edges {
		r := e.serves(t, "/image/none.svg", "<svg>nothing</svg>")
		has(t, "Cache-Status", r.header.Get("Cache-Status"), "detail=default-image")
		has(t, "ETag", r.header.Get("Etag"), `W/"default-`)
		if r := e.refuses(t, "/image/strict/none.svg", 404); r.body != "<svg>nothing</svg>" {
			t.Errorf("%s, want the default image with its 404", r)
		}
		if r := e.refuses(t, "/image/bare/none.svg", 404); strings.Contains(r.body, "svg") {
			t.Errorf("%s, want a plain 404", r)
		}
	}
}

func identifiersAndDomains(t *testing.T, f *fleet) {
	all := newOrigin(t, map[string]string{"/a.txt": "all", "/shots/a.txt": "in a folder of all"})
	shots := newOrigin(t, map[string]string{"/a.txt": "shots"})
	f.apply(t, fmt.Sprintf(`
account: {id: hosts}
origins:
  - {id: all, web: {baseUrl: "%s"}}
  - {id: shots, web: {baseUrl: "%s"}}
urlEndpoints:
  - {id: default, origins: [all]}
  - {id: shots, origins: [shots]}
customDomains:
  - {domain: images.hosts.example, mode: ACCOUNT}
  - {domain: shots.hosts.example, mode: URL_ENDPOINT, urlEndpoint: default}
  - {domain: "*.any.hosts.example", mode: URL_ENDPOINT, urlEndpoint: shots}
`, all.url, shots.url))
	for _, e := range f.edges {
		e.serves(t, "/hosts/a.txt", "all")
		e.serves(t, "/hosts/shots/a.txt", "shots")
		if r := e.servesFrom(t, "images.hosts.example", "/a.txt", "all"); !r.hit() {
			t.Errorf("%s, want the copy that the shared host has fetched", r)
		}
		e.servesFrom(t, "IMAGES.hosts.example.:8080", "/shots/a.txt", "shots")
		// A domain of one endpoint knows no identifiers: there it is a folder.
		e.servesFrom(t, "shots.hosts.example", "/shots/a.txt", "in a folder of all")
		e.servesFrom(t, "one.any.hosts.example", "/a.txt", "shots")
		for _, host := range []string{"two.one.any.hosts.example", "any.hosts.example", "nobody.example"} {
			if r := e.getFrom(t, host, "/a.txt"); r.status != 404 || r.header.Get("Cache-Control") != "no-store" {
				t.Errorf("host %s, which nobody owns: %s, Cache-Control %q", host, r, r.header.Get("Cache-Control"))
			}
		}
		e.refuses(t, "/nobody/a.txt", 404)
	}
	f.do(t, "delete", "domain", "*.any.hosts.example", "-A", "hosts", "--wait")
	for _, e := range f.edges {
		if r := e.getFrom(t, "one.any.hosts.example", "/a.txt"); r.status != 404 {
			t.Errorf("after the domain was deleted: %s, want 404", r)
		}
	}
}

// Uploads take effect in the step itself: no purge, although the edges hold a fresh copy of the
// origin's file.
func mediaLibrary(t *testing.T, f *fleet) {
	o := newOrigin(t, map[string]string{"/dir/a b.txt": "from the origin"})
	f.apply(t, fmt.Sprintf(`
account: {id: media}
origins: [{id: o, web: {baseUrl: "%s"}}]
urlEndpoints: [{id: default, origins: [o]}, {id: bare}]
`, o.url))
	each := func(body string) {
		t.Helper()
		for _, e := range f.edges {
			e.serves(t, "/media/dir/a%20b.txt", body)
			if r := e.serves(t, "/media/dir/a%20b.txt", body); !r.hit() {
				t.Errorf("%s: second request: %s, want a hit", e.name, r)
			}
		}
	}
	each("from the origin")
	f.upload(t, "media", "/dir/a b.txt", "uploaded")
	each("uploaded")
	for _, e := range f.edges {
		e.serves(t, "/media/bare/dir/a%20b.txt", "uploaded")
	}
	f.upload(t, "media", "/dir/a b.txt", "overwritten")
	each("overwritten")
	if text := f.do(t, "media", "get", "-A", "media", "/dir/a b.txt", "-"); text != "overwritten" {
		t.Errorf("media get: %q", text)
	}
	has(t, "media ls", f.do(t, "media", "ls", "-A", "media", "/dir/"), "/dir/a b.txt", "11 B", "text/plain")
	f.do(t, "media", "rm", "-A", "media", "/dir/a b.txt", "--wait")
	each("from the origin")
	for _, e := range f.edges {
		e.refuses(t, "/media/bare/dir/a%20b.txt", 404)
	}
}

func purges(t *testing.T, f *fleet) {
	files := map[string]string{"/a.txt": "1", "/img/b.txt": "1", "/img2/c.txt": "1"}
	o := newOrigin(t, files)
	f.apply(t, fmt.Sprintf(`
account: {id: purges}
origins: [{id: o, web: {baseUrl: "%s"}}]
urlEndpoints: [{id: default, origins: [o]}, {id: other, origins: [o]}]
`, o.url))
	version := 1
	for _, test := range []struct {
		flags   []string
		changes string // the files that edges have to ask for again
	}{
		{[]string{"--url", "http://localhost/purges/a.txt"}, "/a.txt"},
		{[]string{"--prefix", "/img"}, "/img/b.txt /other/img/b.txt"},
		{[]string{"--endpoint", "other", "--hard"}, "/other/a.txt /other/img/b.txt /other/img2/c.txt"},
		{[]string{"--all", "--hard"}, "/a.txt /img/b.txt /img2/c.txt /other/a.txt /other/img/b.txt /other/img2/c.txt"},
	} {
		before := map[string]string{}
		for _, e := range f.edges {
			for path := range files {
				for _, endpoint := range []string{"", "/other"} {
					before[e.id+endpoint+path] = e.get(t, "/purges"+endpoint+path).body
				}
			}
		}
		version++
		for path := range files {
			o.set(path, fmt.Sprint(version))
		}
		f.do(t, append([]string{"purge", "-A", "purges", "--wait"}, test.flags...)...)
		for _, e := range f.edges {
			for path := range files {
				for _, endpoint := range []string{"", "/other"} {
					want := before[e.id+endpoint+path]
					if strings.Contains(" "+test.changes+" ", " "+endpoint+path+" ") {
						want = fmt.Sprint(version)
					}
					if r := e.get(t, "/purges"+endpoint+path); r.body != want {
						t.Errorf("after purge %v at %s: %s is %s, want %q", test.flags, e.name, endpoint+path, r, want)
					}
				}
			}
		}
	}
	has(t, "get purges", f.do(t, "get", "purges", "-A", "purges"), "everything", "HARD", "prefix /img", "DONE",
		"2 done, 0 pending")
}

func orderOfOrigins(t *testing.T, f *fleet) {
	first := newOrigin(t, map[string]string{"/both.txt": "first", "/only.txt": "only first"})
	second := newOrigin(t, map[string]string{"/both.txt": "second"})
	f.apply(t, fmt.Sprintf(`
account: {id: order}
origins:
  - {id: first, web: {baseUrl: "%s"}}
  - {id: second, web: {baseUrl: "%s"}}
urlEndpoints: [{id: default, origins: [first, second]}]
`, first.url, second.url))
	for _, step := range []struct {
		origins, both string
		only          int // status of the file that only the first origin has
	}{
		{"", "first", 200},
		{"second,first", "second", 200},
		{"first,second", "first", 200},
		{"second", "second", 404},
		{"second,first", "second", 200},
		{"[]", "", 404},
	} {
		if step.origins != "" {
			f.do(t, "update", "endpoint", "default", "-A", "order", "--set", "origins="+step.origins, "--wait")
		}
		for _, e := range f.edges {
			if step.both == "" {
				e.refuses(t, "/order/both.txt", 404)
			} else {
				e.serves(t, "/order/both.txt", step.both)
			}
			e.refuses(t, "/order/only.txt", step.only)
		}
	}
	// An origin that moves takes its files with it.
	f.do(t, "update", "endpoint", "default", "-A", "order", "--set", "origins=first", "--wait")
	f.do(t, "update", "origin", "first", "-A", "order", "--set", "web.baseUrl="+second.url, "--wait")
	for _, e := range f.edges {
		e.serves(t, "/order/both.txt", "second")
		e.refuses(t, "/order/only.txt", 404)
	}
}

// Nothing of a deleted account is ever served to its successor under the same id.
func successor(t *testing.T, f *fleet) {
	first := newOrigin(t, map[string]string{"/a.txt": "of the first account"})
	second := newOrigin(t, map[string]string{"/a.txt": "of the second account"})
	manifest := `
account: {id: heir}
origins: [{id: o, web: {baseUrl: "%s"}}]
urlEndpoints: [{id: default, origins: [o]}]
customDomains: [{domain: heir.example, mode: ACCOUNT}]
`
	f.apply(t, fmt.Sprintf(manifest, first.url))
	f.upload(t, "heir", "/m.txt", "media of the first account")
	for _, e := range f.edges {
		e.serves(t, "/heir/a.txt", "of the first account")
		e.servesFrom(t, "heir.example", "/m.txt", "media of the first account")
	}
	if r := f.try(t, "", "delete", "account", "heir"); r.code != 1 || !strings.Contains(r.stderr, "force") {
		t.Errorf("deleting an account that is not empty: exit code %d, %s", r.code, r.stderr)
	}
	f.do(t, "delete", "account", "heir", "--force", "--wait")
	for _, e := range f.edges {
		e.refuses(t, "/heir/a.txt", 404)
		if r := e.getFrom(t, "heir.example", "/a.txt"); r.status != 404 {
			t.Errorf("domain of a deleted account: %s, want 404", r)
		}
	}
	eventually(t, soon, "the account's id is free", func() bool {
		return f.try(t, "", "get", "account", "heir").code == 1
	})
	f.apply(t, fmt.Sprintf(manifest, second.url))
	for _, e := range f.edges {
		e.serves(t, "/heir/a.txt", "of the second account")
		e.servesFrom(t, "heir.example", "/a.txt", "of the second account")
		e.refuses(t, "/heir/m.txt", 404)
	}
}
