package adminsvc

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// changesOf are changes, one a line.
func changesOf(changes []*adminv1.ResourceChange) string {
	var lines []string
	for _, c := range changes {
		line := strings.ToLower(c.GetAction().String()) + " " + strings.TrimPrefix(c.GetName(), "accounts/acme/")
		for _, f := range c.GetFields() {
			if c.GetAction() == adminv1.ResourceChange_UPDATED {
				line += fmt.Sprintf(" %s:%s->%s", f.GetPath(), f.GetBefore(), f.GetAfter())
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

func TestRollback(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	manifest := func(url, secret, more string) int64 {
		t.Helper()
		return do[*adminv1.ApplyManifestResponse](t, r, "ApplyManifest", fmt.Sprintf(`{"prune": true, "manifest": {"account": {"id": "acme"}, "origins": [
			{"id": "web", "web": {"baseUrl": %q}}, {"id": "shop", "s3": {"bucket": "b", "accessKeyId": "k", "secretAccessKey": %q}}],
			"urlEndpoints": [{"id": "default", "origins": ["web", "shop"]}]%s}}`, url, secret, more)).GetRevision()
	}
	first := manifest("http://one.example", "canary-one", `, "customDomains": [{"domain": "one.example.com", "mode": "ACCOUNT"}]`)
	before := r.secretOf(t, "shop")
	second := manifest("http://two.example", "canary-two", `, "customDomains": [{"domain": "two.example.com", "mode": "ACCOUNT"}]`)
	if after := r.secretOf(t, "shop"); before != "canary-one" || after != "canary-two" {
		t.Fatalf("secrets %q, then %q", before, after)
	}
	do[*adminv1.CreateOriginResponse](t, r, "CreateOrigin", `{"parent": "accounts/acme", "originId": "later", "origin": {"web": {"baseUrl": "http://later.example"}}}`)
	if err := r.store.RotateSecrets(t.Context(), func(int) {}); err != nil {
		t.Fatal(err)
	}

	steps := do[*adminv1.ListStepsResponse](t, r, "ListSteps", `{"parent": "accounts/acme"}`).GetSteps()
	if len(steps) != 3 || steps[0].GetMethod() != "CreateOrigin" || steps[1].GetRevision() != second ||
		steps[2].GetRevision() != first {
		t.Fatalf("steps %v", steps)
	}
	diff := do[*adminv1.DiffRevisionsResponse](t, r, "DiffRevisions",
		fmt.Sprintf(`{"parent": "accounts/acme", "from": "%d", "to": "%d"}`, first, second))
	const want = `updated origins/shop s3.secretAccessKey:(changed)->(changed); updated origins/web web.baseUrl:"http://one.example"->"http://two.example"; ` +
		`deleted customDomains/one.example.com; created customDomains/two.example.com`
	if got := changesOf(diff.GetChanges()); got != want {
		t.Errorf("diff\n%s\nwant\n%s", got, want)
	}

	call := fmt.Sprintf(`{"parent": "accounts/acme", "revision": "%d"`, first)
	dry := do[*adminv1.RollbackResponse](t, r, "Rollback", call+`, "validateOnly": true}`)
	if r.secretOf(t, "shop") != "canary-two" {
		t.Error("a dry run has changed a secret")
	}
	back := do[*adminv1.RollbackResponse](t, r, "Rollback",
		call+`, "requestId": "5f0d3ecb-5f4f-4b5d-a2a6-c57e2d9f5a01"}`)
	const undone = `deleted origins/later; updated origins/shop s3.secretAccessKey:(changed)->(changed); updated origins/web web.baseUrl:"http://two.example"->"http://one.example"; ` +
		`created customDomains/one.example.com; deleted customDomains/two.example.com`
	if got := changesOf(back.GetChanges()); got != undone || changesOf(dry.GetChanges()) != undone {
		t.Errorf("rollback\n%s\ndry run\n%s\nwant\n%s", got, changesOf(dry.GetChanges()), undone)
	}
	if secret := r.secretOf(t, "shop"); secret != "canary-one" {
		t.Errorf("the secret is %q, want what it was", secret)
	}
	again := do[*adminv1.RollbackResponse](t, r, "Rollback",
		call+`, "requestId": "5f0d3ecb-5f4f-4b5d-a2a6-c57e2d9f5a01"}`)
	if again.GetRevision() != back.GetRevision() || changesOf(again.GetChanges()) != undone {
		t.Errorf("the same request again: %v", again)
	}
	noop := do[*adminv1.RollbackResponse](t, r, "Rollback", call+`}`)
	if noop.GetRevision() != back.GetRevision() || len(noop.GetChanges()) != 0 {
		t.Errorf("rolled back once more: %v", noop)
	}
	now := do[*adminv1.DiffRevisionsResponse](t, r, "DiffRevisions",
		fmt.Sprintf(`{"parent": "accounts/acme", "from": "%d"}`, first))
	if len(now.GetChanges()) != 0 {
		t.Errorf("after the rollback, since %d: %s", first, changesOf(now.GetChanges()))
	}

	r.refused(t, codes.OutOfRange, "Rollback", `{"parent": "accounts/acme", "revision": "1000000000"}`)
	r.refused(t, codes.InvalidArgument, "Rollback",
		fmt.Sprintf(`{"parent": "accounts/acme", "revision": "%d"}`, first-1))
	r.refused(t, codes.NotFound, "Rollback", `{"parent": "accounts/nobody", "revision": "1"}`)
	r.refused(t, codes.NotFound, "DiffRevisions", `{"parent": "accounts/nobody", "from": "1"}`)
	r.refused(t, codes.NotFound, "ListSteps", `{"parent": "accounts/nobody"}`)
}

// A rollback with the etag of its dry run undoes what that has shown, and nothing that was written
// since.
func TestRollbackUndoesWhatWasShown(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	first := do[*adminv1.CreateAccountResponse](t, r, "CreateAccount", `{"accountId": "acme"}`).GetRevision()
	create := func(id string) {
		t.Helper()
		r.must(t, "CreateOrigin", fmt.Sprintf(
			`{"parent": "accounts/acme", "originId": %q, "origin": {"web": {"baseUrl": "http://a.example"}}}`, id))
	}
	call := func(more string) string {
		return fmt.Sprintf(`{"parent": "accounts/acme", "revision": "%d"%s}`, first, more)
	}
	create("shown")
	dry := do[*adminv1.RollbackResponse](t, r, "Rollback", call(`, "validateOnly": true`))
	create("since")
	shown := fmt.Sprintf(`, "etag": %q`, dry.GetEtag())
	why := r.refused(t, codes.Aborted, "Rollback", call(shown))
	if !strings.Contains(why, "ETAG_MISMATCH") || !strings.Contains(why, "accounts/acme has changed") {
		t.Errorf("the refusal says %s", why)
	}
	r.must(t, "GetOrigin", `{"name": "accounts/acme/origins/since"}`)

	dry = do[*adminv1.RollbackResponse](t, r, "Rollback", call(`, "validateOnly": true`))
	if got := changesOf(dry.GetChanges()); !strings.Contains(got, "deleted origins/since") {
		t.Errorf("the second dry run shows %s", got)
	}
	shown = fmt.Sprintf(`, "etag": %q, "requestId": "5f0d3ecb-5f4f-4b5d-a2a6-c57e2d9f5a02"`, dry.GetEtag())
	back := do[*adminv1.RollbackResponse](t, r, "Rollback", call(shown))
	export := do[*adminv1.ExportManifestResponse](t, r, "ExportManifest", `{"name": "accounts/acme"}`)
	if want := export.GetManifest().GetAccount().GetEtag(); back.GetEtag() != want || want == dry.GetEtag() {
		t.Errorf("the etag is %s after the rollback, was %s, and is %s in an export", back.GetEtag(), dry.GetEtag(), want)
	}
	again := do[*adminv1.RollbackResponse](t, r, "Rollback", call(shown))
	if again.GetEtag() != back.GetEtag() || again.GetRevision() != back.GetRevision() {
		t.Errorf("the same request again: %v, at first %v", again, back)
	}
}

// The history and the audit of an account that is changed much at a time come in pages that every
// client takes, and nothing is left out between them.
func TestAHistoryOfLargeSteps(t *testing.T) {
	t.Parallel()
	const steps, resources = 40, 1000
	r := newRig(t, rigOptions{})
	account := "a" + strings.Repeat("c", 62)
	for n := range steps {
		var b strings.Builder
		for i := range resources {
			fmt.Fprintf(&b, `{"id": "%063d", "displayName": "%d%s", "web": {"baseUrl": "http://a.example"}},`, i, n,
				strings.Repeat("x", 90))
		}
		do[*adminv1.ApplyManifestResponse](t, r, "ApplyManifest", fmt.Sprintf(
			`{"manifest": {"account": {"id": %q}, "origins": [%s]}}`, account, strings.TrimSuffix(b.String(), ",")))
	}
	for method, page := range map[string]func(proto.Message) (revisions []int64, next string){
		"ListSteps": func(m proto.Message) (revisions []int64, next string) {
			for _, step := range m.(*adminv1.ListStepsResponse).GetSteps() {
				revisions = append(revisions, step.GetRevision())
			}
			return revisions, m.(*adminv1.ListStepsResponse).GetNextPageToken()
		},
		"ListEvents": func(m proto.Message) (revisions []int64, next string) {
			for _, event := range m.(*adminv1.ListEventsResponse).GetEvents() {
				revisions = append(revisions, event.GetRevision())
			}
			return revisions, m.(*adminv1.ListEventsResponse).GetNextPageToken()
		},
	} {
		var all []int64
		for token, pages := "", 0; pages == 0 || token != ""; pages++ {
			m, err := r.call(t.Context(), method,
				fmt.Sprintf(`{"parent": "accounts/%s", "pageSize": 1000, "pageToken": %q}`, account, token))
			if err != nil {
				t.Fatal(method, err)
			}
			if size := proto.Size(m); size > 3<<20 {
				t.Errorf("%s: a page has %d bytes", method, size)
			}
			var revisions []int64
			revisions, token = page(m)
			all = append(all, revisions...)
		}
		if len(all) != steps || !slices.IsSortedFunc(all, func(a, b int64) int { return int(b - a) }) {
			t.Errorf("%s lists %d, want %d: %v", method, len(all), steps, all)
		}
	}
}

// A step that is within its bounds is written, whatever has to be told and kept of it: fields of an
// event that have no room are left out, and what the step replaced.
func TestTheLargestStepsAreWritten(t *testing.T) {
	t.Parallel()
	account := strings.Repeat("a", 63)
	apply := func(r *rig, section string, entries []string) {
		t.Helper()
		if _, err := r.call(t.Context(), "ApplyManifest", fmt.Sprintf(`{"manifest": {"account": {"id": %q}, %q: [%s]}}`,
			account, section, strings.Join(entries, ","))); err != nil {
			t.Fatal(section, err)
		}
	}
	r := newRig(t, rigOptions{})
	for range 2 {
		var entries []string
		for i := range 200 {
			var headers []string
			for h := range 11 {
				headers = append(headers, fmt.Sprintf(`"X-H%d": %q`, h, randomHex(250)))
			}
			entries = append(entries, fmt.Sprintf(`{"id": "e%d", "responseHeaders": {"set": {%s}}}`, i,
				strings.Join(headers, ",")))
		}
		apply(r, "urlEndpoints", entries)
	}
	changes := do[*adminv1.ListEventsResponse](t, r, "ListEvents",
		fmt.Sprintf(`{"parent": "accounts/%s", "pageSize": 1}`, account)).GetEvents()[0].GetChanges()
	if len(changes) != 200 || len(changes[0].GetFields()) != 11 || len(changes[199].GetFields()) != 0 {
		t.Errorf("the event lists %d changes, the last with %d fields", len(changes), len(changes[199].GetFields()))
	}
	for range 2 {
		var entries []string
		for i := range 1990 {
			entries = append(entries,
				fmt.Sprintf(`{"id": "%063d", "web": {"baseUrl": "http://a.example/%s"}}`, i, randomHex(240)))
		}
		apply(r, "origins", entries)
	}
}

// What becomes of a large account is told to every client, with as many fields as an answer has
// room for.
func TestAChangeOfALargeAccount(t *testing.T) {
	t.Parallel()
	const origins, parts = 1900, 6
	r := newRig(t, rigOptions{})
	apply := func(from, to, length int, more string) *adminv1.ApplyManifestResponse {
		t.Helper()
		var entries []string
		for i := from; i < to; i++ {
			value := strings.Repeat("x", length)
			entries = append(entries, fmt.Sprintf(`{"id": "o%d", "displayName": %q, "web": {"baseUrl": "http://a.example/%s"},
				"requestHeaders": [{"name": "X-A", "value": "%[3]s"}]}`, i, value[:length/20], value))
		}
		return do[*adminv1.ApplyManifestResponse](t, r, "ApplyManifest", fmt.Sprintf(
			`{"manifest": {"account": {"id": "acme"}, "origins": [%s]}%s}`, strings.Join(entries, ","), more))
	}
	first := apply(0, origins, 20, "").GetRevision()
	for part := range parts {
		apply(part*origins/parts, (part+1)*origins/parts, 1200, "")
	}
	check := func(changes []*adminv1.ResourceChange) {
		t.Helper()
		updated, told := 0, 0
		for _, c := range changes {
			if c.GetAction() == adminv1.ResourceChange_UPDATED {
				updated++
				told += min(1, len(c.GetFields()))
			}
		}
		if updated != origins || told < 500 || told == origins {
			t.Errorf("%d origins are updated, %d with their fields", updated, told)
		}
	}
	check(apply(0, origins, 20, `, "validateOnly": true`).GetChanges())
	check(do[*adminv1.RollbackResponse](t, r, "Rollback",
		fmt.Sprintf(`{"parent": "accounts/acme", "revision": "%d"}`, first)).GetChanges())
}

// randomHex is text that can be compressed to half its length.
func randomHex(n int) string {
	b := make([]byte, n/2)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// What differs is told as far as an answer has room for it, and how much more there is.
func TestADiffOfALargeAccount(t *testing.T) {
	t.Parallel()
	const resources, steps = 700, 8
	r := newRig(t, rigOptions{})
	first := do[*adminv1.CreateAccountResponse](t, r, "CreateAccount", `{"account_id": "acme"}`).GetRevision()
	for n := range steps {
		var b strings.Builder
		for i := range resources {
			fmt.Fprintf(&b, `{"id": "o%d-%d", "web": {"baseUrl": "http://a.example/%s"}},`, n, i, strings.Repeat("x", 900))
		}
		do[*adminv1.ApplyManifestResponse](t, r, "ApplyManifest", fmt.Sprintf(
			`{"manifest": {"account": {"id": "acme"}, "origins": [%s]}}`, strings.TrimSuffix(b.String(), ",")))
	}
	m, err := r.call(t.Context(), "DiffRevisions", fmt.Sprintf(`{"parent": "accounts/acme", "from": "%d"}`, first))
	if err != nil {
		t.Fatal(err)
	}
	diff := m.(*adminv1.DiffRevisionsResponse)
	const endpoint = 1 // the default one takes the first origin
	if n := len(diff.GetChanges()); n < 1000 || n+int(diff.GetMoreChanges()) != steps*resources+endpoint {
		t.Errorf("%d are listed and %d more, want %d in all", n, diff.GetMoreChanges(), steps*resources+endpoint)
	}
}

// A rollback is a write as any other: what was once right is checked again.
func TestRollbackToWhatMayNotBe(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	do[*adminv1.CreateAccountResponse](t, r, "CreateAccount", `{"accountId": "acme"}`)
	held := do[*adminv1.CreateCustomDomainResponse](t, r, "CreateCustomDomain",
		`{"parent": "accounts/acme", "customDomainId": "img.example.com", "customDomain": {"domain": "img.example.com", "mode": "ACCOUNT"}}`).GetRevision()
	do[*adminv1.DeleteCustomDomainResponse](t, r, "DeleteCustomDomain",
		`{"name": "accounts/acme/customDomains/img.example.com"}`)
	do[*adminv1.CreateAccountResponse](t, r, "CreateAccount", `{"accountId": "other"}`)
	do[*adminv1.CreateCustomDomainResponse](t, r, "CreateCustomDomain",
		`{"parent": "accounts/other", "customDomainId": "img.example.com", "customDomain": {"domain": "img.example.com", "mode": "ACCOUNT"}}`)
	r.refused(t, codes.AlreadyExists, "Rollback", fmt.Sprintf(`{"parent": "accounts/acme", "revision": "%d"}`, held))
}

// Events of the audit show whether secrets are equal, and not what they are.
func TestAuditHashesSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	do[*adminv1.CreateAccountResponse](t, r, "CreateAccount", `{"accountId": "acme"}`)
	for _, secret := range []string{"canary-one", "canary-two", "canary-one"} {
		do[*adminv1.ApplyManifestResponse](t, r, "ApplyManifest", fmt.Sprintf(`{"manifest": {"account": {"id": "acme"}, "origins": [
			{"id": "shop", "s3": {"bucket": "b", "accessKeyId": "k", "secretAccessKey": %q}}]}}`, secret))
	}
	page := do[*adminv1.ListEventsResponse](t, r, "ListEvents", `{"parent": "accounts/acme", "pageSize": 2}`)
	rest := do[*adminv1.ListEventsResponse](t, r, "ListEvents",
		fmt.Sprintf(`{"parent": "accounts/acme", "pageToken": %q}`, page.GetNextPageToken()))
	events := append(page.GetEvents(), rest.GetEvents()...)
	if len(events) != 4 || events[3].GetMethod() != "CreateAccount" || events[0].GetResource() != "accounts/acme" ||
		events[0].GetPeer() == "" {
		t.Fatalf("events %v", events)
	}
	var hashes []string
	for _, e := range events[:3] {
		if strings.Contains(e.String(), "canary") {
			t.Errorf("an event tells a secret: %v", e)
		}
		for _, f := range e.GetChanges()[0].GetFields() {
			if f.GetPath() == "s3.secretAccessKey" {
				hashes = append(hashes, f.GetAfter())
			}
		}
	}
	if len(hashes) != 3 || hashes[0] != hashes[2] || hashes[0] == hashes[1] || !strings.HasPrefix(hashes[0], "hmac:") ||
		len(hashes[0]) != 21 {
		t.Errorf("hashes of secrets %q", hashes)
	}
	r.refused(t, codes.InvalidArgument, "ListEvents",
		fmt.Sprintf(`{"parent": "accounts/other", "pageToken": %q}`, page.GetNextPageToken()))
}

// An event holds the first bytes of a long value, and no part of a character at their end.
func TestAuditShortensText(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	do[*adminv1.CreateAccountResponse](t, r, "CreateAccount", `{"accountId": "acme"}`)
	for _, ahead := range []string{"", "a", "ab", "abc"} {
		text := ahead + strings.Repeat("\U0001F5BC", 300)
		do[*adminv1.UpdateUrlEndpointResponse](t, r, "UpdateUrlEndpoint", fmt.Sprintf(
			`{"urlEndpoint": {"name": "accounts/acme/urlEndpoints/default", "description": %q}}`, text))
		page := do[*adminv1.ListEventsResponse](t, r, "ListEvents", `{"parent": "accounts/acme", "pageSize": 1}`)
		field := page.GetEvents()[0].GetChanges()[0].GetFields()[0]
		begin, size, _ := strings.Cut(field.GetAfter(), "... ")
		if !strings.HasPrefix(`"`+text, begin) || len(begin) <= 252 || size != fmt.Sprintf("(%d bytes)", len(text)+2) {
			t.Errorf("after %q: %q", ahead, field.GetAfter())
		}
	}
}

// secretOf reads the secret of an origin of the account acme, as edges do.
func (r *rig) secretOf(t *testing.T, id string) string {
	t.Helper()
	state, err := r.store.AccountState(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDraft(state, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return d.secrets.before(id).Message.GetValues()["s3.secret_access_key"]
}

// do calls a method that must not fail.
func do[M proto.Message](t *testing.T, r *rig, method, body string) M {
	t.Helper()
	raw, err := proto.Marshal(r.must(t, method, body))
	if err != nil {
		t.Fatal(err)
	}
	var none M
	m := none.ProtoReflect().New().Interface().(M)
	if err := proto.Unmarshal(raw, m); err != nil {
		t.Fatal(err)
	}
	return m
}
