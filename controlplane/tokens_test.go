package controlplane

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/edgewalk/edgewalk/internal/bearer"
	"github.com/edgewalk/edgewalk/internal/busyclock"
	"github.com/edgewalk/edgewalk/internal/logtest"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// bearing is ctx with a token.
func bearing(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// make makes a token as root.
func (r *running) make(t *testing.T, role adminv1.Token_Role, account string) *adminv1.CreateTokenResponse {
	t.Helper()
	made, err := adminv1.NewTokenServiceClient(dial(t, r.Addresses().Admin, insecure.NewCredentials())).CreateToken(
		with(t, t.Context(), r.cfg.DataDir, "root"),
		&adminv1.CreateTokenRequest{Token: &adminv1.Token{Role: role, Account: account, Description: "for a test"}})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// A token that is revoked at one control plane is refused at the other within 2 s, and what is
// under way with it there ends: an admin's upload, and an edge's stream.
func TestRevokedAtOneRefusedAtTheOther(t *testing.T) {
	first := start(t, loopbackConfig(t.TempDir()))
	cfg := loopbackConfig(t.TempDir())
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	cfg.EtcdEndpoints, cfg.SecretKeyFile, cfg.MediaURL = []string{first.node.Endpoint()}, first.cfg.secretKeyFile(),
		first.cfg.MediaURL
	second := start(t, cfg)
	defer second.stop(t) // before the etcd that it stands on
	first.createAccount(t, "acme")
	admin, edge := first.make(t, adminv1.Token_EDITOR, "accounts/acme"), first.make(t, adminv1.Token_EDGE, "")
	if _, err := os.Stat(filepath.Join(second.cfg.DataDir, "root-token")); err == nil {
		t.Error("the second control plane has made tokens of its own")
	}

	conn := dial(t, second.Addresses().Admin, insecure.NewCredentials())
	read := func() error {
		_, err := adminv1.NewAccountServiceClient(conn).GetAccount(bearing(t.Context(), admin.GetText()),
			&adminv1.GetAccountRequest{Name: "accounts/acme"})
		return err
	}
	await.True(t, "the token is taken", func() bool { return read() == nil })
	upload, err := adminv1.NewMediaServiceClient(conn).UploadMediaFile(bearing(t.Context(), admin.GetText()))
	if err != nil {
		t.Fatal(err)
	}
	begin := &adminv1.UploadMediaFileRequest_Start_{Start: &adminv1.UploadMediaFileRequest_Start{
		Parent: "accounts/acme", Path: "/a.txt",
	}}
	if err := upload.Send(&adminv1.UploadMediaFileRequest{Part: begin}); err != nil {
		t.Fatal(err)
	}
	tokens := t.TempDir()
	if err := os.WriteFile(filepath.Join(tokens, "edge-token"), []byte(edge.GetText()), 0o600); err != nil {
		t.Fatal(err)
	}
	stream := second.connectWith(t, nil, tokens)
	if _, err := stream.rpc.Recv(); err != nil {
		t.Fatal(err)
	}

	for _, one := range []*adminv1.CreateTokenResponse{admin, edge} {
		if _, err := adminv1.NewTokenServiceClient(dial(
			t, first.Addresses().Admin, insecure.NewCredentials(),
		)).RevokeToken(
			with(t, t.Context(), first.cfg.DataDir, "root"),
			&adminv1.RevokeTokenRequest{Name: one.GetToken().GetName()}); err != nil {
			t.Fatal(err)
		}
	}
	took := busyclock.Start(t)
	if err := upload.RecvMsg(new(adminv1.UploadMediaFileResponse)); status.Code(err) != codes.Unauthenticated ||
		!strings.Contains(err.Error(), "revoked") {
		t.Errorf("the upload ended with %v", err)
	}
	for err == nil {
		_, err = stream.rpc.Recv()
	}
	if took := took(); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	if err := read(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a call afterwards: %v", err)
	}
}

// No token, nor the random part of one, is anywhere but in its answer and in the files of the first
// start: not in etcd's files, the log, the metrics, answers and errors, nor in what edges are sent.
// Edges are sent nothing of what lies below auth/.
func TestTokensAreNowhereInTheClear(t *testing.T) {
	cfg := loopbackConfig(t.TempDir())
	log := new(logtest.Buffer)
	cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := start(t, cfg)
	c.createAccount(t, "acme")
	e := c.connect(t, nil)
	canaries := map[string]string{}
	for _, name := range []string{"root", "edge"} {
		text, err := os.ReadFile(filepath.Join(cfg.DataDir, name+"-token"))
		if err != nil {
			t.Fatal(err)
		}
		canaries["first "+name] = strings.TrimSpace(string(text))
	}
	var revoked string
	for role := range adminv1.Token_Role_name {
		if role == 0 {
			continue
		}
		account := ""
		if role >= int32(adminv1.Token_ADMIN) && role <= int32(adminv1.Token_VIEWER) {
			account = "accounts/acme"
		}
		made := c.make(t, adminv1.Token_Role(role), account)
		canaries[made.GetToken().GetRole().String()] = made.GetText()
		revoked = made.GetToken().GetName()
	}
	var said strings.Builder
	note := func(answer any, err error) { fmt.Fprintf(&said, "%v %v\n", answer, err) }
	conn := dial(t, c.Addresses().Admin, insecure.NewCredentials())
	tokens, accounts := adminv1.NewTokenServiceClient(conn), adminv1.NewAccountServiceClient(conn)
	for _, text := range canaries {
		for _, presented := range []string{text, text[:len(text)-1], text + "x", strings.ToUpper(text)} {
			ctx := bearing(t.Context(), presented)
			note(tokens.WhoAmI(ctx, new(adminv1.WhoAmIRequest)))
			note(tokens.ListTokens(ctx, new(adminv1.ListTokensRequest)))
			note(tokens.RevokeToken(ctx, &adminv1.RevokeTokenRequest{Name: "tokens/aaaaaaaaaa"}))
			note(accounts.UpdateAccount(
				ctx,
				&adminv1.UpdateAccountRequest{Account: &topologyv1.Account{Name: "accounts/acme", DisplayName: "Acme"}},
			))
			code, body := get(t, http.DefaultClient, "http://"+c.Addresses().HTTP+"/metrics", ctx)
			note(code, fmt.Errorf("%s", body))
			code, body = get(t, http.DefaultClient, "http://"+c.Addresses().Media+"/media/acme/0123456789abcdef/a.png",
				ctx)
			note(code, fmt.Errorf("%s", body))
		}
	}
	note(tokens.RevokeToken(with(t, t.Context(), cfg.DataDir, "root"), &adminv1.RevokeTokenRequest{Name: revoked}))
	said.WriteString(c.metrics(t))
	e.until(t, c.createAccount(t, "globex"))
	for key, value := range e.Records {
		if strings.Contains(key, "auth") || strings.Contains(key, "token") {
			t.Errorf("an edge is sent %s", key)
		}
		fmt.Fprintf(&said, "%s %s\n", key, prototext.Format(value))
	}
	snapshot := save(t, conn, with(t, t.Context(), cfg.DataDir, "root"))
	c.stop(t)
	places := map[string]string{"log": log.String(), "what was said": said.String(), "snapshot": snapshot}
	err := filepath.WalkDir(cfg.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, "-token") {
			return err
		}
		text, err := os.ReadFile(path)
		places[path] = string(bytes.TrimRight(text, "\x00")) // etcd makes room in advance
		return err
	})
	if err != nil || len(places) < 6 {
		t.Fatalf("%d places to look at, %v", len(places), err)
	}
	for place, text := range places {
		lower := strings.ToLower(text)
		for name, canary := range canaries {
			random := strings.Split(canary, "_")[2]
			if strings.Contains(text, canary) || strings.Contains(lower, random) {
				t.Errorf("the token %s is in %s", name, place)
			}
		}
	}
	if !strings.Contains(places["snapshot"], "auth/tokens/") {
		t.Error("no token's record was found at all, so nothing was looked at")
	}
}

// save is a snapshot.
func save(t *testing.T, conn *grpc.ClientConn, ctx context.Context) string {
	t.Helper()
	stream, err := adminv1.NewSnapshotServiceClient(conn).SaveSnapshot(ctx, new(adminv1.SaveSnapshotRequest))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for {
		part, err := stream.Recv()
		if err != nil {
			return all.String()
		}
		all.Write(part.GetData())
	}
}

// A reset of a folder ends the root tokens that there were, and leaves the others.
func TestResetOfAFolder(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := ResetRootToken(t.Context(), loopbackConfig(filepath.Join(dir, "nothing"))); err == nil ||
		!strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("a folder without anything: %v", err)
	}
	cfg := loopbackConfig(dir)
	c := start(t, cfg)
	metrics, old := c.make(t, adminv1.Token_METRICS, "").GetText(), with(t, t.Context(), dir, "root")
	c.stop(t)
	file, revoked, err := ResetRootToken(t.Context(), loopbackConfig(dir))
	if err != nil || revoked != 1 || file != filepath.Join(dir, "root-token") {
		t.Fatalf("%s, %d, %v", file, revoked, err)
	}
	c = start(t, cfg)
	who := adminv1.NewTokenServiceClient(dial(t, c.Addresses().Admin, insecure.NewCredentials()))
	for name, one := range map[string]struct {
		ctx  context.Context
		want codes.Code
	}{
		"the old": {old, codes.Unauthenticated}, "the new": {with(t, t.Context(), dir, "root"), codes.OK},
		"another": {bearing(t.Context(), metrics), codes.OK},
	} {
		if _, err := who.WhoAmI(one.ctx, new(adminv1.WhoAmIRequest)); status.Code(err) != one.want {
			t.Errorf("%s token: %v", name, err)
		}
	}
}

// Only programs of this machine that could read the file of the root token anyway learn its path. A
// program that passes on others' requests does not, and nobody does once the token is of no use.
// Such a question leaves nothing in the audit log.
func TestWhereTheRootTokenLiesIsToldToItsReadersAlone(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux says whose a connection is: run it there")
	}
	r := start(t, loopbackConfig(t.TempDir()))
	conn := dial(t, r.Addresses().Admin, insecure.NewCredentials())
	ask := func(fields ...string) []string {
		t.Helper()
		var header metadata.MD
		if _, err := healthv1.NewHealthClient(conn).Check(
			metadata.AppendToOutgoingContext(t.Context(), fields...), new(healthv1.HealthCheckRequest),
			grpc.Header(&header)); err != nil {
			t.Fatal(err)
		}
		return header.Get(bearer.TokenFileField)
	}
	file := filepath.Join(r.cfg.DataDir, "root-token")
	if got := ask(bearer.TokenFileField, "?"); len(got) != 1 || got[0] != file {
		t.Errorf("a program of this user is told %q, want %s", got, file)
	}
	for name, fields := range map[string][]string{
		"who does not ask":            nil,
		"a proxy":                     {bearer.TokenFileField, "?", "x-forwarded-for", "192.0.2.1"},
		"a proxy of RFC 7239":         {bearer.TokenFileField, "?", "forwarded", "for=192.0.2.1"},
		"a proxy that names itself":   {bearer.TokenFileField, "?", "via", "1.1 proxy"},
		"nginx's, as it is often set": {bearer.TokenFileField, "?", "x-real-ip", "192.0.2.1"},
	} {
		if got := ask(fields...); got != nil {
			t.Errorf("%s is told %q", name, got)
		}
	}
	for _, path := range []string{"/v1:whoAmI", "/readyz", "/healthz"} {
		resp, err := http.Get("http://" + r.Addresses().HTTP + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if text := fmt.Sprint(resp.Header, string(body)); strings.Contains(text, "root-token") {
			t.Errorf("%s tells %s", path, text)
		}
	}
	_, err := adminv1.NewTokenServiceClient(conn).WhoAmI(t.Context(), new(adminv1.WhoAmIRequest))
	if details := fmt.Sprint(status.Convert(err).Proto()); strings.Contains(details, "root-token") {
		t.Errorf("a call without a token is told %s", details)
	}
	log, err := os.ReadFile(filepath.Join(r.cfg.DataDir, auditLogName))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(log), "\n"); n != 2 { // WhoAmI and /v1:whoAmI
		t.Errorf("%d lines in the audit log: %s", n, log)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.ToUpper(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ask(bearer.TokenFileField, "?"); got != nil {
		t.Errorf("of a file with no valid token is told %q", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := ask(bearer.TokenFileField, "?"); got != nil {
		t.Errorf("of a file that is gone is told %q", got)
	}
}
