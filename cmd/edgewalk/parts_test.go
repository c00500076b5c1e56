package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// A large account is exported as several documents, which make the same account in another control
// plane. An edited export is applied as long as nobody else has changed the account, also where it
// is stopped in the middle.
func TestALargeAccountIsExportedAndApplied(t *testing.T) {
	if testing.Short() {
		t.Skip("writes thousands of resources")
	}
	here, there := startDemo(t, false), startDemo(t, false)
	t.Chdir(t.TempDir())
	must := func(at demonstration, args ...string) string {
		t.Helper()
		code, stdout, stderr := edgewalk(t, append(args, "--server", at.admin)...)
		if code != 0 {
			t.Fatalf("edgewalk %q: exit %d: %s", args, code, stderr)
		}
		return stdout
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	const n = 1500
	head := "account: {id: large, displayName: Large, limits: {customDomains: 50000}}\n"
	sections := []string{
		head + "origins:\n", head + "urlEndpoints:\n- {id: default, origins: [o0007, o0003]}\n",
		head + "customDomains:\n", head + "customDomains:\n",
	}
	for i := range n {
		sections[0] += fmt.Sprintf("- {id: o%04d, web: {baseUrl: 'http://127.0.0.1:9/%d'}}\n", i, i)
		sections[1] += fmt.Sprintf("- {id: e%04d, description: '%s', origins: [o%04d]}\n", i, strings.Repeat("d", 300),
			i)
		sections[2] += fmt.Sprintf("- {domain: a%04d.large.example.com, mode: ACCOUNT}\n", i)
		sections[3] += fmt.Sprintf("- {domain: u%04d.large.example.com, mode: URL_ENDPOINT, urlEndpoint: e%04d}\n", i, i)
	}
	write("large.yaml", strings.Join(sections, "---\n"))
	must(here, "apply", "-f", "large.yaml")

	exported := must(here, "export", "large")
	documents := strings.Split(exported, "\n---\n")
	etag := regexp.MustCompile(`  etag: .*\n`)
	if len(documents) < 4 || len(etag.FindAllString(exported, -1)) != 1 || !etag.MatchString(documents[0]) {
		t.Fatalf("%d documents, with etags %q", len(documents), etag.FindAllString(exported, -1))
	}
	write("bare.yaml", etag.ReplaceAllString(exported, ""))
	must(there, "apply", "-f", "bare.yaml")
	if etag.ReplaceAllString(must(there, "export", "large"), "") != etag.ReplaceAllString(exported, "") {
		t.Error("the account is another one in the other control plane")
	}

	// What was exported changes nothing. Neither does it as JSON.
	write("large.yaml", exported)
	write("large.json", must(here, "export", "large", "-o", "json"))
	for _, file := range []string{"large.yaml", "large.json"} {
		if out := must(here, "apply", "-f", file); strings.Count(out, " unchanged\n") != strings.Count(out, "\n") {
			t.Errorf("what was exported to %s changes something", file)
		}
	}

	// An edit that is refused in the last document, goes on with its id, and meets nobody else's
	// change.
	edited := strings.Replace(exported, "displayName: Large", "displayName: Edited", 1)
	edited = strings.Replace(edited, "description: d", "description: edited d", 1)
	write("large.yaml", strings.Replace(edited, "domain: u1499.large", "domain: u1499..large", 1))
	code, _, stderr := edgewalk(t, "apply", "-f", "large.yaml", "--server", here.admin)
	id := regexp.MustCompile(`--request-id (\S+)`).FindStringSubmatch(stderr)
	if code != 1 || id == nil ||
		!strings.Contains(stderr, fmt.Sprintf("Of %d documents, %d are applied.", len(documents), len(documents)-1)) {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	write("large.yaml", edited)
	must(here, "apply", "-f", "large.yaml", "--request-id", id[1])
	if code, _, stderr = edgewalk(t, "apply", "-f", "large.yaml", "--server", here.admin); code != 1 ||
		!strings.Contains(stderr, "ETAG_MISMATCH") {
		t.Errorf("an etag from before: exit %d: %s", code, stderr)
	}

	exported = must(here, "export", "large")
	write("large.yaml", strings.Replace(exported, "description: edited d", "description: mine d", 1))
	must(here, "update", "origin", "o0001", "-A", "large", "--set", "displayName=Theirs")
	before := must(here, "export", "large")
	if code, _, stderr = edgewalk(t, "apply", "-f", "large.yaml", "--server", here.admin); code != 1 ||
		!strings.Contains(stderr, "ETAG_MISMATCH") {
		t.Errorf("a colleague's change in between: exit %d: %s", code, stderr)
	}
	if must(here, "export", "large") != before {
		t.Error("a refused apply has changed something")
	}
}
