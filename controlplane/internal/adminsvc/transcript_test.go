package adminsvc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/edgewalk/edgewalk/internal/transcript"
)

// TestTranscripts shows the API by conversations. A line that begins with a method's name is a
// request, the lines below it are the answer. Revisions are R1, R2, ... in the order in which a
// conversation first sees them, in requests too; times are TIME.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	transcript.Each(t, "testdata/*.txt", func(t *testing.T, script string) string {
		t.Parallel()
		return (&conversation{rig: newRig(t, rigOptions{}), names: map[string]string{}}).run(t, script)
	})
}

type conversation struct {
	rig   *rig
	names map[string]string // revision -> R1
}

var maskField = regexp.MustCompile(`, "updateMask": "([^"]*)"`)

var request = regexp.MustCompile(`^([A-Z][A-Za-z]+) (\{.*)$`)

func (c *conversation) run(t *testing.T, script string) string {
	var out strings.Builder
	inRequest := false
	for line := range strings.SplitSeq(strings.TrimSuffix(script, "\n"), "\n") {
		m := request.FindStringSubmatch(line)
		switch {
		case m != nil:
			inRequest = true
			out.WriteString(line + "\n" + c.call(t, m[1], m[2]))
		case line == "" || strings.HasPrefix(line, "#"):
			inRequest = false
			out.WriteString(line + "\n")
		case !inRequest:
			t.Fatalf("neither a request nor a comment: %s", line)
		}
	}
	return out.String()
}

func (c *conversation) call(t *testing.T, method, body string) string {
	t.Helper()
	for revision, name := range c.names {
		body = regexp.MustCompile(`\b`+name+`\b`).ReplaceAllString(body, revision)
	}
	resp, err := c.rig.call(t.Context(), method, body)
	if err != nil {
		return c.tame(describe(err))
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: false}.Marshal(resp)
	if err != nil {
		t.Fatal(err)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, raw); err != nil {
		t.Fatal(err)
	}
	answer := line.String() + "\n"
	if reads.MatchString(method + " " + body) {
		// Other tests move etcd's revision on.
		answer = lastRevision.ReplaceAllString(answer, `"revision":"NOW"$1`)
	}
	return c.tame(answer)
}

var (
	reads        = regexp.MustCompile(`^(Get|List|Export|Check)|"validateOnly": true`)
	lastRevision = regexp.MustCompile(
		`"revision":"\d+"((?:,"warnings":\[[^]]*\])?(?:,"etag":"[^,]*")?(?:,"nextPageToken":"[^"]*")?\}\n)$`,
	)

	times     = regexp.MustCompile(`"20\d\d-[^"]*Z"`)
	revisions = regexp.MustCompile(
		`("revision":"|"etag":"\\"|"uid":"|[uU]rlEndpointUid":"|etag is \\?"|not \\?"|etag=\\?")(\d+)`,
	)
	purgeIDs   = regexp.MustCompile(`[0-9a-f]{16}-[0-9a-f]{8}`)
	tokenIDs   = regexp.MustCompile(`"(tokens/|id":")[a-z2-7]{10}"`)
	tokenTexts = regexp.MustCompile(`("(?:text|token)":"ewj?1_)[a-z0-9_]+`)
	macs       = regexp.MustCompile(`hmac:[0-9a-f]{16}`)
	proofs     = regexp.MustCompile(`(edgewalk=|\b)[a-z2-7]{20}(\.edge\.example\.net|")`)
	tokens     = regexp.MustCompile(`"nextPageToken":"[^"]+"`)
)

func (c *conversation) tame(s string) string {
	s = times.ReplaceAllString(s, `"TIME"`)
	s = purgeIDs.ReplaceAllString(s, "PURGE")
	s = tokens.ReplaceAllString(s, `"nextPageToken":"TOKEN"`)
	s = proofs.ReplaceAllString(s, "${1}PROOF$2")
	s = tokenIDs.ReplaceAllString(s, `"${1}TOKEN"`)
	s = tokenTexts.ReplaceAllString(s, `${1}TEXT`)
	s = macs.ReplaceAllString(s, "hmac:MAC")
	return revisions.ReplaceAllStringFunc(s, func(match string) string {
		m := revisions.FindStringSubmatch(match)
		if c.names[m[2]] == "" {
			c.names[m[2]] = fmt.Sprintf("R%d", len(c.names)+1)
		}
		return m[1] + c.names[m[2]]
	})
}

// describe shows an error with all its details.
func describe(err error) string {
	st := status.Convert(err)
	var b strings.Builder
	fmt.Fprintf(&b, "%s", st.Code())
	var rest strings.Builder
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			fmt.Fprintf(&b, " %s/%s", d.GetDomain(), d.GetReason())
			for _, k := range []string{"resources", "maxResources", "bytes", "maxBytes", "etag", "domain"} {
				if v, ok := d.GetMetadata()[k]; ok {
					fmt.Fprintf(&b, " %s=%s", k, v)
				}
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				fmt.Fprintf(&rest, "  field %q: %s\n", v.GetField(), v.GetDescription())
			}
		case *errdetails.PreconditionFailure:
			for _, v := range d.GetViolations() {
				fmt.Fprintf(&rest, "  blocked by %q: %s\n", v.GetSubject(), v.GetDescription())
			}
		case *errdetails.ResourceInfo:
			fmt.Fprintf(&rest, "  resource %s %q\n", d.GetResourceType(), d.GetResourceName())
		}
	}
	return fmt.Sprintf("%s: %s\n%s", b.String(), st.Message(), rest.String())
}

// call calls a unary method of any admin service by its short name, with a request in JSON.
func (r *rig) call(ctx context.Context, method, body string, opts ...grpc.CallOption) (proto.Message, error) {
	var found protoreflect.MethodDescriptor
	protoregistry.GlobalFiles.RangeFilesByPackage("edgewalk.admin.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			if m := f.Services().Get(i).Methods().ByName(protoreflect.Name(method)); m != nil {
				found = m
			}
		}
		return found == nil
	})
	if found == nil {
		return nil, fmt.Errorf("there is no method %q", method)
	}
	in, err := protoregistry.GlobalTypes.FindMessageByName(found.Input().FullName())
	if err != nil {
		return nil, err
	}
	out, err := protoregistry.GlobalTypes.FindMessageByName(found.Output().FullName())
	if err != nil {
		return nil, err
	}
	req, resp := in.New().Interface(), out.New().Interface()
	// JSON has no way to write `*`, or a key with a hyphen, in a mask.
	m := maskField.FindStringSubmatch(body)
	if m != nil {
		body = strings.Replace(body, m[0], "", 1)
	}
	if err := protojson.Unmarshal([]byte(body), req); err != nil {
		return nil, fmt.Errorf("request of %s: %w", method, err)
	}
	if m != nil {
		mask := &fieldmaskpb.FieldMask{Paths: strings.Split(m[1], ",")}
		req.ProtoReflect().Set(
			req.ProtoReflect().Descriptor().Fields().ByName("update_mask"),
			protoreflect.ValueOfMessage(mask.ProtoReflect()),
		)
	}
	name := fmt.Sprintf("/%s/%s", found.Parent().FullName(), found.Name())
	if r.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+r.token)
	}
	return resp, r.conn.Invoke(ctx, name, req, resp, opts...)
}
