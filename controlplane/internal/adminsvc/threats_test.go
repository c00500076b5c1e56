package adminsvc

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	"github.com/edgewalk/edgewalk/internal/transcript"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// What each attacker of docs/threat-model.md does, and gets. Besides calls, as in other
// transcripts, a script has lines that begin with `>`:
//
//	as ROLE [ACCOUNT] | as nobody    whose token is presented from then on
//
// present TEXT                     presents a text as a token: HASH is what etcd holds of one, and
//
//	                                 REVOKED one that was revoked before
//	N x METHOD BODY                  makes a call so many times, and counts how they ended
//	cut off etcd | give etcd back    between it and the control plane
//	list FOLDER                      what lies there in etcd
//	search TEXT                      where a text lies in etcd, and in a snapshot
//	copy FROM TO                     in etcd
//	keep the keys of POOL            as an edge of the pool is sent them, `-` for one of no pool
//	open ACCOUNT/ORIGIN              the secrets of an origin, with the keys that were kept
//	audit log                        what was written down since it was shown before
//	stop                             ends the audit log, as the control plane does at its end
func TestThreats(t *testing.T) {
	t.Parallel()
	transcript.Each(t, "testdata/threats/*.txt", func(t *testing.T, script string) string {
		t.Parallel()
		return newAttack(t).run(t, script)
	})
}

// attack is a conversation with a control plane whose etcd can be reached, and cut off.
type attack struct {
	*conversation
	etcd *storetest.Raw
	// revoked is a token that was revoked.
	revoked string
	way     *storetest.Cutting
	keys    *seal.Ring
	log     func() []*adminv1.AuditEvent
	shown   int // of the log
}

// newAttack has the accounts gold, in the pool gold, and globex, each with an origin that has a
// secret.
func newAttack(t *testing.T) *attack {
	t.Helper()
	prefix := storetest.Prefix()
	s, way := storetest.OpenCutting(t, store.Config{Prefix: prefix})
	if _, _, err := s.InitSettings(t.Context(), &topologyv1.Settings{SharedHost: "localhost:8080"}); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, rigOptions{store: s, guarded: true})
	a := &attack{
		conversation: &conversation{rig: r, names: map[string]string{}}, etcd: storetest.OpenRaw(t, prefix), way: way,
		log: r.audited(t),
	}
	r.token = r.tokenOf(t, adminv1.Token_ROOT, "")
	for account, pools := range map[string]string{"gold": `"gold"`, "globex": ""} {
		r.must(t, "ApplyManifest", fmt.Sprintf(`{"manifest": {"account": {"id": %q, "pools": [%s]}, "origins": [
			{"id": "shop", "s3": {"bucket": %q, "accessKeyId": "k", "secretAccessKey": "canary-of-%s"}}]}}`,
			account, pools, account, account))
	}
	a.revoked = r.tokenOf(t, adminv1.Token_METRICS, "")
	r.must(t, "RevokeToken", fmt.Sprintf(`{"name": "tokens/%s"}`, strings.Split(a.revoked, "_")[1]))
	a.shown = len(a.log())
	return a
}

func (a *attack) run(t *testing.T, script string) string {
	t.Helper()
	var out strings.Builder
	inAnswer := false
	for line := range strings.SplitSeq(strings.TrimSuffix(script, "\n"), "\n") {
		m := request.FindStringSubmatch(line)
		act, acts := strings.CutPrefix(line, "> ")
		switch {
		case m != nil:
			inAnswer = true
			out.WriteString(line + "\n" + a.call(t, m[1], m[2]))
		case acts:
			inAnswer = true
			out.WriteString(line + "\n" + a.tame(a.do(t, act)))
		case line == "" || strings.HasPrefix(line, "#"):
			inAnswer = false
			out.WriteString(line + "\n")
		case !inAnswer:
			t.Fatalf("neither an act nor a comment: %s", line)
		}
	}
	return out.String()
}

var hashes = regexp.MustCompile(`[0-9a-f]{64}`)

// do carries out one act, and returns what comes of it.
func (a *attack) do(t *testing.T, act string) string {
	t.Helper()
	words := strings.Fields(act)
	rest := strings.TrimSpace(strings.TrimPrefix(act, words[0]))
	switch words[0] {
	case "as":
		if a.rig.token = ""; words[1] != "nobody" {
			account := append(words, "")[2]
			a.rig.token = a.rig.tokenOf(t, adminv1.Token_Role(adminv1.Token_Role_value[words[1]]), account)
		}
		return ""
	case "present":
		switch a.rig.token = rest; rest {
		case "HASH":
			for _, kv := range a.etcd.Values(t, "auth/tokens/") {
				a.rig.token = hashes.FindString(string(kv))
			}
		case "REVOKED":
			a.rig.token = a.revoked
		}
		return ""
	case "stop":
		_ = a.rig.service.audit.Close()
		return ""
	case "cut":
		a.way.Cut()
		a.until(t, codes.Unavailable)
		return ""
	case "give":
		a.way.Restore()
		a.until(t, codes.Unauthenticated)
		return ""
	case "list":
		var lines []string
		for key, value := range a.etcd.Values(t, rest) {
			line := hashes.ReplaceAllString(key+" "+string(value), "HASH") + "\n"
			lines = append(lines, seconds.ReplaceAllString(tokenKeys.ReplaceAllString(line, "tokens/TOKEN"), "TIME"))
		}
		slices.Sort(lines)
		return strings.Join(lines, "")
	case "search":
		return a.search(t, rest)
	case "copy":
		for _, value := range a.etcd.Values(t, words[1]) {
			a.etcd.Put(t, words[2], value)
		}
		return ""
	case "keep":
		a.keys = a.rig.store.EdgeKeys(strings.TrimPrefix(words[len(words)-1], "-"))
		return ""
	case "open":
		return a.open(t, rest)
	case "audit":
		var b strings.Builder
		all := a.log()
		last, lines := "", 0
		for i, e := range append(all[a.shown:len(all):len(all)], nil) {
			line := ""
			if e != nil {
				line = fmt.Sprintf("%s %s account=%q resource=%q %s calls=%d\n", e.GetMethod(), e.GetRole(),
					e.GetAccount(), e.GetResource(), e.GetCode(), max(1, e.GetCalls()))
			}
			if line != last && i > 0 {
				fmt.Fprintf(&b, "%d x %s", lines, last)
				lines = 0
			}
			last, lines = line, lines+1
		}
		a.shown = len(all)
		return tokenKeys.ReplaceAllString(b.String(), "tokens/TOKEN")
	}
	return a.many(t, words[0], strings.TrimPrefix(rest, "x "))
}

// until waits until a token that was revoked is answered so: by then it is known whether etcd is
// there.
func (a *attack) until(t *testing.T, code codes.Code) {
	t.Helper()
	token := a.rig.token
	a.rig.token = a.revoked
	eventually(t, func() bool {
		_, err := a.rig.call(t.Context(), "WhoAmI", "{}")
		return status.Code(err) == code
	})
	a.rig.token = token
}

var (
	tokenKeys = regexp.MustCompile(`tokens/[a-z2-7]{10}`)
	seconds   = regexp.MustCompile(`\b\d{10}\b`)
)

// search looks for a text in etcd, and in a snapshot.
func (a *attack) search(t *testing.T, text string) string {
	t.Helper()
	if text == "TOKEN" {
		text = a.rig.token
	}
	where := make(map[string]bool)
	for key, value := range a.etcd.Values(t, "") {
		if bytes.Contains(value, []byte(text)) {
			folder, _, _ := strings.Cut(key, "/")
			where["etcd: "+folder] = true
		}
	}
	var snapshot bytes.Buffer
	if _, err := a.rig.store.Snapshot(t.Context(), &snapshot); err != nil {
		t.Fatal(err)
	}
	if snapshot.Len() == 0 {
		t.Fatal("the snapshot is empty")
	}
	if bytes.Contains(snapshot.Bytes(), []byte(text)) {
		where["snapshot"] = true
	}
	if len(where) == 0 {
		return "nowhere\n"
	}
	return strings.Join(slices.Sorted(maps.Keys(where)), ", ") + "\n"
}

// open opens what etcd holds of an origin's secrets with the keys that were kept.
func (a *attack) open(t *testing.T, name string) string {
	t.Helper()
	account, id, _ := strings.Cut(name, "/")
	origin := new(topologyv1.Origin)
	secrets := new(topologyv1.OriginSecrets)
	for kind, m := range map[topology.Kind]proto.Message{
		topology.KindOrigins: origin, topology.KindOriginSecrets: secrets,
	} {
		record, _, err := a.rig.store.Get(t.Context(), topology.Key{Kind: kind, Account: account, ID: id})
		if err != nil {
			t.Fatal(err)
		}
		if err := proto.Unmarshal(record.Value, m); err != nil {
			t.Fatal(err)
		}
	}
	values, err := topology.OpenSecrets(a.keys, account, id, origin, secrets)
	if err != nil {
		return fmt.Sprintln("refused:", err)
	}
	return fmt.Sprintln("opened:", strings.Join(slices.Sorted(maps.Values(values)), " "))
}

// many makes a call many times.
func (a *attack) many(t *testing.T, count, call string) string {
	t.Helper()
	n := 0
	if _, err := fmt.Sscan(count, &n); err != nil || n == 0 {
		t.Fatalf("%q is no act", count)
	}
	method, body, _ := strings.Cut(call, " ")
	full := ""
	methods(t, a.rig, func(m protoreflect.MethodDescriptor, name string, _ *adminv1.Rule) {
		if string(m.Name()) == method {
			full = name
		}
	})
	ended := make(map[codes.Code]int)
	for range n {
		_, err := a.rig.converse(t, full, body)
		ended[status.Code(err)]++
	}
	var b strings.Builder
	for _, code := range slices.Sorted(maps.Keys(ended)) {
		fmt.Fprintf(&b, "%s: %d\n", codeName(code), ended[code])
	}
	return b.String()
}
