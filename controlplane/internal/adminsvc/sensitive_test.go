package adminsvc

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/edgewalk/edgewalk/controlplane/internal/auditlog"
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
		"ListEvents": `{"parent": "accounts/acme"}`,
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
}
