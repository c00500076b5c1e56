package adminsvc

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/transcript"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// tokenOf makes a token of a role for an account, empty for all, as root would.
func (r *rig) tokenOf(t testing.TB, role adminv1.Token_Role, account string) string {
	t.Helper()
	w := auth.Wanted{Role: role, Account: auth.EveryAccount, TTL: time.Hour, Creator: "test"}
	if account != "" {
		stored, _, err := readAt[*topologyv1.Account](t.Context(), r.service, accountKey(account), 0)
		if err != nil {
			t.Fatal(err)
		}
		w.Account, w.UID = account, present(accountKey(account), stored).GetUid()
		if err := r.feed.WaitRevision(t.Context(), stored.ModRevision); err != nil {
			t.Fatal(err)
		}
	}
	_, text, err := r.auth.Create(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// guardedRig has the accounts acme and globex, and asks for tokens.
func guardedRig(t *testing.T) *rig {
	t.Helper()
	return guardedRigAt(t, nil)
}

// guardedRigAt is one whose clock is now; nil: the real one.
func guardedRigAt(t *testing.T, now func() time.Time) *rig {
	t.Helper()
	r := newRig(t, rigOptions{guarded: true, now: now})
	r.token = r.tokenOf(t, adminv1.Token_ROOT, "")
	for _, account := range []string{"acme", "globex"} {
		for method, request := range map[string]string{
			"ApplyManifest": fmt.Sprintf(`{"manifest": {"account": {"id": %q}, "origins": [{"id": "legacy", "web": {"baseUrl": "http://%s.example.com"}}]}}`, account, account),
		} {
			if _, err := r.call(t.Context(), method, request); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// mayWhat is which permissions each role has, as docs/security.md says.
var mayWhat = map[adminv1.Token_Role]string{
	adminv1.Token_ROOT:     "ANY READ FOLLOW PURGE WRITE GRANT ACCOUNTS FLEET_READ FLEET SNAPSHOT METRICS UPDATE_ACCOUNT JOIN",
	adminv1.Token_OPERATOR: "ANY READ FOLLOW GRANT ACCOUNTS FLEET_READ FLEET METRICS UPDATE_ACCOUNT",
	adminv1.Token_ADMIN:    "ANY READ FOLLOW PURGE WRITE UPDATE_ACCOUNT GRANT",
	adminv1.Token_EDITOR:   "ANY READ FOLLOW PURGE WRITE UPDATE_ACCOUNT",
	adminv1.Token_PURGER:   "ANY FOLLOW PURGE",
	adminv1.Token_VIEWER:   "ANY READ FOLLOW",
	adminv1.Token_METRICS:  "ANY METRICS",
	adminv1.Token_EDGE:     "",
}

// Every method of every service that there is, with the token of every role, about the account of
// the token and another one, is let through or refused as its rule says. A method without a rule
// fails.
func TestWhoMayCallWhat(t *testing.T) {
	t.Parallel()
	r := guardedRig(t)
	type caller struct {
		name      string
		role      adminv1.Token_Role
		ofAccount bool
		token     string
	}
	callers := []caller{{name: "nobody"}}
	for role := range mayWhat {
		callers = append(
			callers,
			caller{
				role.String(), role, auth.OfAccount(role),
				r.tokenOf(t, role, map[bool]string{true: "acme"}[auth.OfAccount(role)]),
			},
		)
		if auth.OfAccount(role) {
			callers = append(callers, caller{role.String() + " of all", role, false, r.tokenOf(t, role, "")})
		}
	}
	methods := 0
	for service, info := range r.service.NewServer().GetServiceInfo() {
		for _, m := range info.Methods {
			full := "/" + service + "/" + m.Name
			if full == healthv1.Health_Check_FullMethodName {
				continue // for probes; see TestProbesTakeNoMemory
			}
			methods++
			rule := ruleOf(full)
			if rule == nil || rule.GetPermission() == adminv1.Rule_PERMISSION_UNSPECIFIED {
				t.Errorf("%s has no rule: say in its proto who may call it", full)
				continue
			}
			d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + m.Name))
			if err != nil {
				t.Fatal(err)
			}
			input := d.(protoreflect.MethodDescriptor).Input()
			for _, c := range callers {
				for _, account := range []string{"acme", "globex"} {
					may := slices.Contains(strings.Fields(mayWhat[c.role]), rule.GetPermission().String())
					if c.ofAccount && rule.GetAccountFrom() != ofCaller {
						may = may && rule.GetAccountFrom() != "" && account == "acme"
					}
					err := r.invoke(t, full, m, about(t, input, rule.GetAccountFrom(), account), c.token)
					switch code := status.Code(err); {
					case c.token == "" && code != codes.Unauthenticated,
						c.token != "" && may == (code == codes.PermissionDenied),
						c.token != "" && code == codes.Unauthenticated, code == codes.Internal,
						code == codes.Unimplemented:
						t.Errorf("%s calls %s about %s: %v", c.name, full, account, err)
					}
				}
			}
		}
	}
	if methods < 45 {
		t.Errorf("only %d methods were called", methods)
	}
}

// about is a request that names an account where the rule looks for it. It is wrong in other ways,
// so that nothing comes of it.
func about(t *testing.T, input protoreflect.MessageDescriptor, from, account string) proto.Message {
	t.Helper()
	m := dynamicpb.NewMessage(input)
	if from == "" || from == ofCaller {
		return m
	}
	r := m.ProtoReflect()
	from, _, _ = strings.Cut(from, "|")
	path := strings.Split(from, ".")
	for _, name := range path[:len(path)-1] {
		f := r.Descriptor().Fields().ByName(protoreflect.Name(name))
		if f == nil {
			t.Fatalf("%s: the rule looks for the account in %s, which is not there", input.FullName(), from)
		}
		r = r.Mutable(f).Message()
	}
	f := r.Descriptor().Fields().ByName(protoreflect.Name(path[len(path)-1]))
	if f == nil || f.Kind() != protoreflect.StringKind {
		t.Fatalf("%s: the rule looks for the account in %s, which is no text", input.FullName(), from)
	}
	r.Set(f, protoreflect.ValueOfString("accounts/"+account+"/no/such/thing"))
	return m
}

// invoke makes a call of any kind and returns how it ended, or nil once it was answered.
func (r *rig) invoke(t *testing.T, full string, m grpc.MethodInfo, request proto.Message, token string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	stream, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.IsClientStream, ServerStreams: true}, full)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err == nil {
		_ = stream.CloseSend() // what is wrong the answer says
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(full[1:], "/",
		".")))
	if err != nil {
		t.Fatal(err)
	}
	return stream.RecvMsg(dynamicpb.NewMessage(d.(protoreflect.MethodDescriptor).Output()))
}

// What a thief gets with a token of each role. A transcript begins with `# ROLE`, or `# ROLE
// account`, whose token is presented.
func TestStolenTokens(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/stolen/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	reported := map[adminv1.Token_Role]bool{}
	for _, file := range files {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(want), "\n")
		name, account, _ := strings.Cut(strings.TrimPrefix(head, "# "), " ")
		role := adminv1.Token_Role(adminv1.Token_Role_value[name])
		reported[role] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := guardedRig(t)
			r.connectEdge(t, "secret-edge", func(q *edgev1.Ask) *edgev1.Answer {
				// An edge that is older than the question's account.
				e := &topologyv1.Explanation{
					Edge: "secret-edge", Status: 200, Account: strings.Split(q.GetExplain().GetUrl(), "/")[3],
				}
				return &edgev1.Answer{Result: &edgev1.Answer_Explain{Explain: e}}
			})
			r.token = r.tokenOf(t, role, account)
			talk := &conversation{rig: r, names: map[string]string{}}
			got := talk.run(t, string(want))
			transcript.Agree(t, file, string(want), got)
			for _, never := range []string{"secret-edge", r.token} {
				if account != "" && strings.Contains(got, never) {
					t.Errorf("the thief is told %q", never)
				}
			}
		})
	}
	for role := range mayWhat {
		if !reported[role] {
			t.Errorf("testdata/stolen tells nothing of %s", role)
		}
	}
}

// A token for an account ends with the account, and is not for a later one of the same id.
func TestTokensGoWithTheirAccount(t *testing.T) {
	t.Parallel()
	r := guardedRig(t)
	root, viewer := r.token, r.tokenOf(t, adminv1.Token_VIEWER, "acme")
	before := strings.Split(viewer, "_")[1]
	reads := func(token string) codes.Code {
		r.token = token
		_, err := r.call(t.Context(), "ListOrigins", `{"parent": "accounts/acme"}`)
		return status.Code(err)
	}
	if code := reads(viewer); code != codes.OK {
		t.Fatalf("before: %v", code)
	}
	r.token = root
	if _, err := r.call(t.Context(), "DeleteAccount", `{"name": "accounts/acme", "force": true}`); err != nil {
		t.Fatal(err)
	}
	background(t, r.store.Run)
	eventually(t, func() bool {
		r.token = root
		_, err := r.call(t.Context(), "CreateAccount", `{"accountId": "acme"}`)
		return err == nil
	})
	later := r.tokenOf(t, adminv1.Token_VIEWER, "acme")
	// What answers about the account of whoever calls is about the one that there is now, too.
	for method, request := range map[string]string{
		"Explain": `{"url": "http://localhost/acme/a.png"}`, "ListAccounts": `{}`,
		"WaitApplied": `{}`, "GetRevision": `{}`,
	} {
		r.token = viewer
		if _, err := r.call(t.Context(), method, request); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s with the token of the account before: %v", method, err)
		}
		r.token = later
		if _, err := r.call(t.Context(), method, request); status.Code(err) == codes.PermissionDenied {
			t.Errorf("%s with that of the one now: %v", method, err)
		}
	}
	if code := reads(viewer); code != codes.PermissionDenied {
		t.Errorf("the token of the account before: %v", code)
	}
	if code := reads(later); code != codes.OK {
		t.Errorf("that of the one now: %v", code)
	}
	r.token = root
	tokens := func() []string {
		r.auth.Sweep(t.Context())
		var ids []string
		for _, token := range do[*adminv1.ListTokensResponse](t, r, "ListTokens", `{}`).GetTokens() {
			ids = append(ids, token.GetId())
		}
		return ids
	}
	eventually(t, func() bool { return !slices.Contains(tokens(), before) })
	if ids := tokens(); !slices.Contains(ids, strings.Split(later, "_")[1]) {
		t.Errorf("the token of the account now is gone, too: %q", ids)
	}
}

// Limits and pools are for who manages all accounts.
func TestLimitsAreOperators(t *testing.T) {
	t.Parallel()
	r := guardedRig(t)
	callers := map[string]string{
		"root": r.token, "operator": r.tokenOf(t, adminv1.Token_OPERATOR, ""),
		"admin": r.tokenOf(t, adminv1.Token_ADMIN, "acme"),
	}
	limit := func() int32 {
		r.token = callers["root"]
		resp, err := r.call(t.Context(), "GetAccount", `{"name": "accounts/acme"}`)
		if err != nil {
			t.Fatal(err)
		}
		return resp.(*adminv1.GetAccountResponse).GetAccount().GetEffectiveLimits().GetOrigins()
	}
	for _, step := range []struct {
		as, method, request string
		want                codes.Code
		limit               int32
	}{
		{"root", "UpdateAccount", `{"account": {"name": "accounts/acme", "limits": {"origins": 7}}}`, codes.OK, 7},
		{"admin", "UpdateAccount", `{"account": {"name": "accounts/acme", "limits": {"origins": 70000}}}`, codes.PermissionDenied, 7},
		{"admin", "UpdateAccount", `{"account": {"name": "accounts/acme"}, "updateMask": "limits"}`, codes.PermissionDenied, 7},
		{"admin", "UpdateAccount", `{"account": {"name": "accounts/acme", "pools": ["gold"]}}`, codes.PermissionDenied,
			7},
		{"admin", "UpdateAccount", `{"account": {"name": "accounts/acme", "displayName": "Acme"}}`, codes.OK, 7},
		{"admin", "ApplyManifest", `{"manifest": {"account": {"id": "acme", "limits": {"origins": 70000}}}}`, codes.PermissionDenied, 7},
		{"admin", "ApplyManifest", `{"manifest": {"account": {"id": "acme"}}}`, codes.OK, 7},
		{"admin", "ApplyManifest", `{"text": "account: {id: acme, limits: {origins: 7}}"}`, codes.OK, 7},
		{"admin", "UpdateAccount", `{"account": {"name": "accounts/acme", "pools": ["eu"]}}`, codes.PermissionDenied,
			7},
		{"operator", "UpdateAccount", `{"account": {"name": "accounts/acme", "limits": {"origins": 9}}}`, codes.OK, 9},
		{"root", "UpdateAccount", `{"account": {"name": "accounts/acme"}, "updateMask": "limits"}`, codes.OK, 10_000},
	} {
		r.token = callers[step.as]
		if _, err := r.call(t.Context(), step.method, step.request); status.Code(err) != step.want {
			t.Errorf("%s calls %s %s: %v", step.as, step.method, step.request, err)
		}
		if got := limit(); got != step.limit {
			t.Errorf("%s calls %s %s: the limit is %d, want %d", step.as, step.method, step.request, got, step.limit)
		}
	}
}

// With etcd gone a token that is known still reads what is in memory; one that is not known is
// answered UNAVAILABLE.
func TestTokensWithoutEtcd(t *testing.T) {
	t.Parallel()
	s, way := storetest.OpenCutting(t, store.Config{Prefix: storetest.Prefix()})
	if _, _, err := s.InitSettings(t.Context(), &topologyv1.Settings{SharedHost: "localhost:8080"}); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, rigOptions{store: s, guarded: true})
	known := r.tokenOf(t, adminv1.Token_OPERATOR, "")
	unknown := r.tokenOf(t, adminv1.Token_VIEWER, "")
	r.token = unknown
	if _, err := r.call(
		t.Context(), "RevokeToken", fmt.Sprintf(`{"name": "tokens/%s"}`, strings.Split(unknown, "_")[1]),
	); err != nil {
		t.Fatal(err)
	}
	way.Cut()
	eventually(t, func() bool {
		r.token = unknown
		_, err := r.call(t.Context(), "WhoAmI", "{}")
		return status.Code(err) == codes.Unavailable && strings.Contains(describe(err), "TOKENS_UNAVAILABLE")
	})
	for _, method := range []string{"WhoAmI", "ListEdges", "ListFreezes"} {
		r.token = known
		if _, err := r.call(t.Context(), method, "{}"); err != nil {
			t.Errorf("%s with a known token: %v", method, err)
		}
	}
	r.token = "ew1_nonsense"
	if _, err := r.call(t.Context(), "WhoAmI", "{}"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("what is no token: %v", err)
	}
	way.Restore()
	eventually(t, func() bool {
		r.token = unknown
		_, err := r.call(t.Context(), "WhoAmI", "{}")
		return status.Code(err) == codes.Unauthenticated
	})
}

// What a token is used too much for is refused, and says so; others go on.
func TestCallsOfATokenAreBounded(t *testing.T) {
	t.Parallel()
	began := time.Now()
	r := guardedRigAt(t, func() time.Time { return began })
	other := r.token
	r.token = r.tokenOf(t, adminv1.Token_VIEWER, "acme")
	var err error
	for calls := 0; err == nil && calls < 2000; calls++ {
		_, err = r.call(t.Context(), "WhoAmI", "{}")
	}
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(describe(err), "TOO_MANY_REQUESTS") {
		t.Errorf("2,000 calls at one instant: %v", err)
	}
	r.token = other
	if _, err := r.call(t.Context(), "WhoAmI", "{}"); err != nil {
		t.Errorf("another token: %v", err)
	}
}
