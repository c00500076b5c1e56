package adminsvc

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/edgewalk/edgewalk/controlplane/internal/auditlog"
	"github.com/edgewalk/edgewalk/internal/certtest"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// A secret is shown only to callers that the audit log records; when the log cannot be written, to
// none. All else goes on.
func TestSensitiveCallsNeedTheAuditLog(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{guarded: true})
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := auditlog.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	r.service.audit = log
	text := func() string {
		t.Helper()
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}

	r.token = "not-a-token-canary"
	r.refused(t, codes.Unauthenticated, "ListAccounts", `{}`)
	if got := text(); !strings.Contains(got, "UNAUTHENTICATED") || !strings.Contains(got, "ListAccounts") ||
		!strings.Contains(got, "unknown token") || strings.Contains(got, "canary") {
		t.Errorf("of a denied call the log says %s", got)
	}
	r.token = r.tokenOf(t, adminv1.Token_ROOT, "")
	do[*adminv1.CreateAccountResponse](t, r, "CreateAccount", `{"accountId": "acme"}`)
	do[*adminv1.ListTokensResponse](t, r, "ListTokens", `{}`)
	if got := text(); !strings.Contains(got, "ListTokens") || !strings.Contains(got, "tokens/") ||
		strings.Contains(got, r.token) {
		t.Errorf("of a list of tokens the log says %s", got)
	}
	root, viewer := r.token, r.tokenOf(t, adminv1.Token_VIEWER, "acme")
	r.token = viewer
	r.refused(t, codes.PermissionDenied, "RevokeEdge", `{"edge": "fra-1"}`)
	who := "tokens/" + strings.Split(viewer, "_")[1]
	if lines := strings.Split(text(), "\n"); !slices.ContainsFunc(lines, func(line string) bool {
		return strings.Contains(line, "RevokeEdge") && strings.Contains(line, `"`+who+`"`)
	}) {
		t.Errorf("of what the role of %s may not do the log says %s", who, text())
	}
	r.token = root

	full := filepath.Join(t.TempDir(), "gone", "audit.log")
	if err := os.Mkdir(filepath.Dir(full), 0o700); err != nil {
		t.Fatal(err)
	}
	if r.service.audit, err = auditlog.Open(full); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(full)); err != nil {
		t.Fatal(err)
	}
	for method, body := range map[string]string{
		"ListTokens": `{}`, "TestOrigin": `{"name": "accounts/acme/origins/o"}`,
		"ListEvents":      `{"parent": "accounts/acme"}`,
		"CreateToken":     `{"token": {"role": "VIEWER", "account": "accounts/acme"}}`,
		"CreateJoinToken": `{"edge": "fra-1"}`, "RotateEdgeAuthority": `{}`,
	} {
		if text := r.refused(t, codes.Unavailable, method, body); !strings.Contains(text, "AUDIT_UNAVAILABLE") {
			t.Errorf("%s without a log: %s", method, text)
		}
	}
	stream, err := adminv1.NewSnapshotServiceClient(r.conn).SaveSnapshot(
		metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+r.token),
		&adminv1.SaveSnapshotRequest{},
	)
	if err == nil {
		_, err = stream.Recv()
	}
	if err == nil || !strings.Contains(describe(err), "AUDIT_UNAVAILABLE") {
		t.Errorf("a snapshot without a log: %v", err)
	}
	do[*adminv1.UpdateAccountResponse](t, r, "UpdateAccount", `{"account": {"name": "accounts/acme", "displayName": "goes on"}}`)
	// What takes back what may have been stolen goes on too.
	do[*adminv1.RevokeTokenResponse](t, r, "RevokeToken", `{"name": "`+who+`"}`)
}

// While etcd is gone, who presents tokens that nobody knows cannot be refused for good. It fills no
// log either, whatever it presents.
func TestUnknownCallersShareLines(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{guarded: true})
	events := r.audited(t)
	const calls = 10_000
	for n := range calls {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", fmt.Sprint("Bearer ", n)))
		if err := r.service.record(
			ctx, adminv1.TokenService_CreateToken_FullMethodName, nil, nil, codes.Unavailable,
		); err != nil {
			t.Fatal(err)
		}
	}
	_ = r.service.audit.Close()
	reported := int64(0)
	for _, event := range events() {
		reported += max(1, event.GetCalls())
	}
	if n := len(events()); n > 100 || reported != calls {
		t.Errorf("%d lines tell of %d calls, of %d", n, reported, calls)
	}
}

// What is made, and then cannot be written down, is taken back.
func TestWhatIsNotWrittenDownIsUndone(t *testing.T) {
	t.Parallel()
	r := guardedRig(t)
	full, err := auditlog.Open("/dev/full")
	if err != nil {
		t.Skip("/dev/full is missing: it is a device of Linux")
	}
	t.Cleanup(func() { _ = full.Close() }) // which says that not all is written
	tokens := func() int {
		r.service.audit = nil
		return len(do[*adminv1.ListTokensResponse](t, r, "ListTokens", `{}`).GetTokens())
	}
	before := tokens()
	for method, body := range map[string]string{
		"CreateToken":     `{"token": {"role": "VIEWER", "account": "accounts/acme"}}`,
		"CreateJoinToken": `{"edge": "fra-1"}`,
	} {
		if r.service.audit, err = auditlog.Open("/dev/full"); err != nil { // it is not known yet that it takes nothing
			t.Fatal(err)
		}
		if text := r.refused(t, codes.Unavailable, method, body); !strings.Contains(text, "AUDIT_UNAVAILABLE") ||
			strings.Contains(text, "ew") && strings.Contains(text, "1_") {
			t.Errorf("%s on a full disk: %s", method, text)
		}
		_ = r.service.audit.Close()
	}
	if after := tokens(); after != before {
		t.Errorf("%d tokens before, %d after", before, after)
	}
	// An edge that has no join token is not known at all.
	r.refused(t, codes.NotFound, "RevokeEdge", `{"edge": "fra-1"}`)
}

// methods are those of all services, with their rules.
func methods(t *testing.T, r *rig, do func(m protoreflect.MethodDescriptor, full string, rule *adminv1.Rule)) {
	t.Helper()
	for service, info := range r.service.NewServer().GetServiceInfo() {
		for _, one := range info.Methods {
			name := protoreflect.FullName(service + "." + one.Name)
			d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
			if err != nil {
				t.Fatal(err)
			}
			if full := "/" + service + "/" + one.Name; full != healthv1.Health_Check_FullMethodName {
				do(d.(protoreflect.MethodDescriptor), full, ruleOf(full))
			}
		}
	}
}

// Each method says what is written down of its calls. What only reads, and tells no secret, is
// nothing: by its permission, and by its request over HTTP unless it stands here.
func TestEveryMethodSaysWhatIsWrittenDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	reads := []adminv1.Rule_Permission{
		adminv1.Rule_ANY, adminv1.Rule_READ, adminv1.Rule_FOLLOW, adminv1.Rule_FLEET_READ, adminv1.Rule_METRICS,
	}
	posts := []string{"CheckCustomDomain", "Explain", "WaitApplied"}
	methods(t, r, func(m protoreflect.MethodDescriptor, full string, rule *adminv1.Rule) {
		request, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
		changes := request != nil && request.GetGet() == "" && !slices.Contains(posts, string(m.Name()))
		switch {
		case rule.GetAudit() == adminv1.Rule_AUDIT_UNSPECIFIED:
			t.Errorf("%s does not say what is written down of it", full)
		case rule.GetAudit() == adminv1.Rule_UNRECORDED &&
			(changes || !slices.Contains(reads, rule.GetPermission())):
			t.Errorf("%s asks for %s, and nothing is written down of it", full, rule.GetPermission())
		}
		for _, found := range field.FindAllStringSubmatch(rule.GetTarget(), -1) {
			if !hasPath(m.Input(), found[1]) && !hasPath(m.Output(), found[1]) {
				t.Errorf("%s is about %s, which neither its request nor its answer has", full, found[1])
			}
		}
	})
}

func hasPath(m protoreflect.MessageDescriptor, path string) bool {
	name, rest, nested := strings.Cut(path, ".")
	f := m.Fields().ByName(protoreflect.Name(name))
	return f != nil && !f.IsList() && !f.IsMap() && (!nested || f.Message() != nil && hasPath(f.Message(), rest))
}

// audited has a service write its audit log to a file, and returns a function that reads it.
func (r *rig) audited(t *testing.T) (events func() []*adminv1.AuditEvent) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := auditlog.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	r.service.audit = log
	return func() (all []*adminv1.AuditEvent) {
		t.Helper()
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			event := new(adminv1.AuditEvent)
			if err := protojson.Unmarshal([]byte(line), event); err != nil {
				t.Fatal(err)
			}
			all = append(all, event)
		}
		return all
	}
}

// converse makes a call of any kind, with one request or several, and reads all of its answer.
func (r *rig) converse(t *testing.T, full string, requests ...string) (first proto.Message, err error) {
	t.Helper()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(
		protoreflect.FullName(strings.ReplaceAll(full[1:], "/", ".")))
	if err != nil {
		t.Fatal(err)
	}
	m := d.(protoreflect.MethodDescriptor)
	ctx := t.Context()
	if r.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+r.token)
	}
	stream, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, full)
	if err != nil {
		return nil, err
	}
	for _, text := range requests {
		request := dynamicpb.NewMessage(m.Input())
		if err := protojson.Unmarshal([]byte(text), request); err != nil {
			t.Fatalf("%s %s: %v", full, text, err)
		}
		if err := stream.SendMsg(request); err != nil {
			break // what is wrong the answer says
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for {
		answer := dynamicpb.NewMessage(m.Output())
		switch err := stream.RecvMsg(answer); {
		case errors.Is(err, io.EOF):
			return first, nil
		case err != nil:
			return first, err
		case first == nil:
			first = answer
		}
	}
}

// Of each call that writes, tells secrets, or makes others able to, there is exactly one event, in
// etcd or in the log: with who, in which role, the account, what it was about, and how it ended. A
// denied one is in the log, too.
func TestEachSuchCallIsOneEvent(t *testing.T) {
	t.Parallel()
	r := guardedRig(t)
	authority := certtest.New(t)
	r.service.roots = authority.Pool()
	pair := authority.Issue([]string{"img.example.com"})
	fromLog := r.audited(t)
	root := r.token
	tokens := map[string]string{
		"ROOT": root, "OPERATOR": r.tokenOf(t, adminv1.Token_OPERATOR, ""),
		"ADMIN": r.tokenOf(t, adminv1.Token_ADMIN, "acme"), "PURGER": r.tokenOf(t, adminv1.Token_PURGER, "acme"),
	}
	victim := strings.Split(r.tokenOf(t, adminv1.Token_VIEWER, "acme"), "_")[1]
	before := do[*adminv1.GetRevisionResponse](t, r, "GetRevision", `{}`).GetRevision()
	upload := fmt.Sprintf(`{"name": "accounts/acme/customDomains/img.example.com", "certificatePem": %q, "privateKeyPem": %q}`,
		certtest.PEM(pair.Leaf), pair.KeyPEM(t))
	fromEtcd := func() (all []*adminv1.AuditEvent) {
		t.Helper()
		for _, account := range []string{"acme", "globex", "made"} {
			events, _, err := r.store.Events(t.Context(), account, 0, 1000)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, events...)
		}
		slices.SortFunc(all,
			func(a, b *adminv1.AuditEvent) int { return cmp.Compare(a.GetRevision(), b.GetRevision()) })
		return all
	}
	const made = "?" // a name that the answer has
	const acme = "accounts/acme"
	done := map[string]bool{}
	for _, row := range []struct {
		as, method, account, target string
		requests                    []string
	}{
		{"OPERATOR", "CreateAccount", "accounts/made", "accounts/made", []string{`{"accountId": "made"}`}},
		{
			"ADMIN", "UpdateAccount", acme, acme,
			[]string{`{"account": {"name": "accounts/acme", "displayName": "Acme"}}`},
		},
		{
			"ADMIN", "CreateOrigin", acme, "accounts/acme/origins/new",
			[]string{`{"parent": "accounts/acme", "originId": "new", "origin": {"web": {"baseUrl": "http://new.example.com"}}}`},
		},
		{
			"ADMIN", "UpdateOrigin", acme, "accounts/acme/origins/new",
			[]string{`{"origin": {"name": "accounts/acme/origins/new", "displayName": "x"}}`},
		},
		{"ADMIN", "TestOrigin", acme, "accounts/acme/origins/new", []string{`{"name": "accounts/acme/origins/new"}`}},
		{
			"ADMIN", "CreateUrlEndpoint", acme, "accounts/acme/urlEndpoints/e",
			[]string{`{"parent": "accounts/acme", "urlEndpointId": "e", "urlEndpoint": {}}`},
		},
		{
			"ADMIN", "UpdateUrlEndpoint", acme, "accounts/acme/urlEndpoints/e",
			[]string{`{"urlEndpoint": {"name": "accounts/acme/urlEndpoints/e", "origins": ["legacy"]}}`},
		},
		{
			"ROOT", "CreateCustomDomain", acme, "accounts/acme/customDomains/img.example.com",
			[]string{`{"parent": "accounts/acme", "customDomain": {"domain": "img.example.com", "mode": "ACCOUNT"}}`},
		},
		{
			"ADMIN", "UpdateCustomDomain", acme, "accounts/acme/customDomains/img.example.com",
			[]string{`{"customDomain": {"name": "accounts/acme/customDomains/img.example.com", "mode": "URL_ENDPOINT", "urlEndpoint": "e"}}`},
		},
		{"ADMIN", "UploadCertificate", acme, "accounts/acme/customDomains/img.example.com", []string{upload}},
		{
			"ADMIN", "RenewCertificate", acme, "accounts/acme/customDomains/img.example.com",
			[]string{`{"name": "accounts/acme/customDomains/img.example.com"}`},
		},
		{
			"ADMIN", "DeleteCustomDomain", acme, "accounts/acme/customDomains/img.example.com",
			[]string{`{"name": "accounts/acme/customDomains/img.example.com"}`},
		},
		{
			"ADMIN", "UploadMediaFile", acme, "accounts/acme/mediaFiles/a.txt",
			[]string{`{"start": {"parent": "accounts/acme", "path": "/a.txt"}}`, `{"data": "YWJj"}`},
		},
		{
			"ADMIN", "DownloadMediaFile", acme, "accounts/acme/mediaFiles/a.txt",
			[]string{`{"name": "accounts/acme/mediaFiles/a.txt"}`},
		},
		{
			"ADMIN", "UpdateMediaFile", acme, "accounts/acme/mediaFiles/a.txt",
			[]string{`{"mediaFile": {"name": "accounts/acme/mediaFiles/a.txt", "tags": ["x"]}}`},
		},
		{
			"ADMIN", "CopyMediaFile", acme, "accounts/acme/mediaFiles/a.txt",
			[]string{`{"name": "accounts/acme/mediaFiles/a.txt", "path": "b.txt"}`},
		},
		{
			"ADMIN", "MoveMediaFile", acme, "accounts/acme/mediaFiles/b.txt",
			[]string{`{"name": "accounts/acme/mediaFiles/b.txt", "path": "c.txt"}`},
		},
		{
			"ADMIN", "DeleteMediaFile", acme, "accounts/acme/mediaFiles/a.txt",
			[]string{`{"name": "accounts/acme/mediaFiles/a.txt"}`},
		},
		{"PURGER", "CreatePurge", acme, made, []string{`{"parent": "accounts/acme", "purge": {"everything": true}}`}},
		{"ADMIN", "ApplyManifest", acme, acme, []string{`{"text": "account: {id: acme, displayName: y}"}`}},
		{
			"ADMIN", "DeleteUrlEndpoint", acme, "accounts/acme/urlEndpoints/e",
			[]string{`{"name": "accounts/acme/urlEndpoints/e"}`},
		},
		{
			"ADMIN", "DeleteOrigin", acme, "accounts/acme/origins/new",
			[]string{`{"name": "accounts/acme/origins/new"}`},
		},
		{
			"ADMIN", "CreateOrigin", acme, "accounts/acme/origins/again",
			[]string{`{"parent": "accounts/acme", "originId": "again", "origin": {"web": {"baseUrl": "http://new.example.com"}}}`},
		},
		{"ADMIN", "Rollback", acme, acme, []string{fmt.Sprintf(`{"parent": "accounts/acme", "revision": %d}`, before)}},
		{"ADMIN", "ListEvents", acme, acme, []string{`{"parent": "accounts/acme"}`}},
		{"ADMIN", "CreateToken", acme, made, []string{`{"token": {"role": "VIEWER", "account": "accounts/acme"}}`}},
		{"ROOT", "CreateToken", "*", made, []string{`{"token": {"role": "OPERATOR"}}`}},
		{"ADMIN", "ListTokens", acme, acme, []string{`{"account": "accounts/acme"}`}},
		{"OPERATOR", "ListTokens", "", "", []string{`{}`}},
		{"ADMIN", "RevokeToken", acme, "tokens/" + victim, []string{`{"name": "tokens/` + victim + `"}`}},
		{"ADMIN", "RevokeToken", acme, "tokens/aaaaaaaaaa", []string{`{"name": "tokens/aaaaaaaaaa"}`}},
		{"ROOT", "CreateJoinToken", "", "edges/fra-1", []string{`{"edge": "fra-1", "region": "eu"}`}},
		{"OPERATOR", "RevokeEdge", "", "edges/fra-1", []string{`{"edge": "fra-1"}`}},
		{"OPERATOR", "RotateEdgeAuthority", "", "authorities/2", []string{`{}`}},
		{"OPERATOR", "FreezeEdges", "", "regions/eu", []string{`{"region": "eu"}`}},
		{"OPERATOR", "FreezeEdges", "", "regions/-", []string{`{}`}},
		{"OPERATOR", "UnfreezeEdges", "", "regions/eu", []string{`{"region": "eu"}`}},
		{"ROOT", "RotateSecrets", "", "", []string{`{}`}},
		{"OPERATOR", "RolloverAccountKey", "", "", []string{`{}`}},
		{"ROOT", "SaveSnapshot", "", "", []string{`{}`}},
		{
			"OPERATOR", "DeleteAccount", "accounts/made", "accounts/made",
			[]string{`{"name": "accounts/made", "force": true}`},
		},
	} {
		var full string
		var level adminv1.Rule_Audit
		methods(t, r, func(m protoreflect.MethodDescriptor, name string, rule *adminv1.Rule) {
			if string(m.Name()) == row.method {
				full, level = name, rule.GetAudit()
			}
		})
		done[full] = true
		r.token = tokens[row.as]
		stored, written := len(fromEtcd()), len(fromLog())
		answer, err := r.converse(t, full, row.requests...)
		code := status.Code(err)
		if may := row.method == "TestOrigin" || row.method == "RenewCertificate" ||
			row.method == "RolloverAccountKey" ||
			strings.Contains(row.target, "aaaa"); code != codes.OK && !may {
			t.Fatalf("%s: %s", row.method, describe(err))
		}
		all := append(fromEtcd()[stored:], fromLog()[written:]...)
		if (level == adminv1.Rule_STORED) != (len(fromLog()) == written) {
			t.Errorf("%s: %s, and the log has %d events more", row.method, level, len(fromLog())-written)
		}
		if len(all) != 1 {
			t.Errorf("%s leaves %d events: %v", row.method, len(all), all)
			continue
		}
		want := row.target
		if want == made {
			want = textIn(answer, "purge.name") + textIn(answer, "token.name")
		}
		event := all[0]
		if event.GetMethod() != row.method || event.GetWho() != "tokens/"+strings.Split(r.token, "_")[1] ||
			event.GetRole().String() != row.as || event.GetAccount() != row.account || event.GetResource() != want ||
			event.GetCode() != codeName(code) || event.GetPeer() == "" || event.GetTime() == nil {
			t.Errorf("%s about %s of %q: %v", row.method, want, row.account, event)
		}
	}
	methods(t, r, func(_ protoreflect.MethodDescriptor, full string, rule *adminv1.Rule) {
		if rule.GetAudit() != adminv1.Rule_UNRECORDED && !done[full] {
			t.Errorf("%s is not called here: add a row", full)
		}
	})
	r.token = r.tokenOf(t, adminv1.Token_METRICS, "")
	methods(t, r, func(m protoreflect.MethodDescriptor, full string, rule *adminv1.Rule) {
		if rule.GetPermission() == adminv1.Rule_ANY {
			return
		}
		fromLog := r.audited(t)
		if _, err := r.converse(t, full, `{}`); status.Code(err) != codes.PermissionDenied {
			t.Fatalf("%s: %v", full, err)
		}
		all := fromLog()
		if len(all) != 1 || all[0].GetMethod() != string(m.Name()) || all[0].GetRole() != adminv1.Token_METRICS ||
			all[0].GetCode() != "PERMISSION_DENIED" {
			t.Errorf("%s, denied: %v", full, all)
		}
	})
}
