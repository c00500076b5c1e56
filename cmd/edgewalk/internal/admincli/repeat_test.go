package admincli

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// What is known of a failed call by gRPC's words is what gRPC says.
func TestWhatGRPCSays(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	go func() { _ = server.Serve(listener) }() // it returns nil, or the address is gone
	t.Cleanup(server.Stop)
	call := func(target, name string) error {
		conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = adminv1.NewAccountServiceClient(conn).GetAccount(t.Context(), &adminv1.GetAccountRequest{Name: name})
		return err
	}
	if err := call("unix:"+filepath.Join(t.TempDir(), "none"), ""); err == nil || unknownOutcome(err) {
		t.Errorf("of a call that was never sent the outcome is unknown: %v", err)
	}
	const want = "a name or value is not valid UTF-8"
	if got := new(cli).headline(status.Convert(call(listener.Addr().String(), "\xff"))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A write whose outcome nobody knows is repeated under its id, and if that helps not, the id is
// named.
func TestAWriteOfUnknownOutcomeIsRepeated(t *testing.T) {
	unknown, err := status.New(
		codes.Unavailable, "etcd was lost",
	).WithDetails(&errdetails.ErrorInfo{Reason: "OUTCOME_UNKNOWN"})
	if err != nil {
		t.Fatal(err)
	}
	cut := status.New(codes.Unavailable, "error reading from server: EOF")
	dead := status.New(codes.Unavailable, `connection error: desc = "refused"`)
	refused := status.New(codes.AlreadyExists, "exists")
	for name, tt := range map[string]struct {
		answers []*status.Status
		calls   int
		want    string
	}{
		"done":                     {[]*status.Status{nil}, 1, ""},
		"refused":                  {[]*status.Status{refused}, 1, "exists"},
		"never sent":               {[]*status.Status{dead}, 1, "refused"},
		"unknown, then done":       {[]*status.Status{unknown, nil}, 2, ""},
		"cut, then done":           {[]*status.Status{cut, nil}, 2, ""},
		"cut, then refused":        {[]*status.Status{cut, refused}, 2, "exists"},
		"cut, then nobody answers": {[]*status.Status{cut, dead}, 2, "--request-id "},
		"unknown twice":            {[]*status.Status{unknown, unknown}, 2, "--request-id "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ids []string
				invoke := func(
					_ context.Context, _ string, req, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption,
				) error {
					ids = append(ids, req.(*adminv1.CreateAccountRequest).GetRequestId())
					return tt.answers[len(ids)-1].Err()
				}
				err := new(cli).identify(t.Context(), "CreateAccount", &adminv1.CreateAccountRequest{}, nil, nil,
					invoke)
				if len(ids) != tt.calls || ids[0] == "" || ids[len(ids)-1] != ids[0] {
					t.Errorf("asked under the ids %q, want one id %d times", ids, tt.calls)
				}
				if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if _, own := errors.AsType[*apiError](err); own && !strings.Contains(err.Error(), ids[0]) {
					t.Errorf("%v does not name %s", err, ids[0])
				}
			})
		})
	}
	given := &cli{requestID: "given"}
	req := &adminv1.CreateAccountRequest{}
	if err := given.identify(
		t.Context(), "", req, nil, nil,
		func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil },
	); err != nil || req.GetRequestId() != "given" {
		t.Errorf("under %q, %v", req.GetRequestId(), err)
	}
}

// Each write of a command that makes several has an id of its own, the same when the command is
// repeated as its error says.
func TestWritesOfOneCommandHaveIdsOfTheirOwn(t *testing.T) {
	t.Parallel()
	var ids []string
	unknown := status.New(codes.Canceled, "interrupted")
	run := func(c *cli, names ...string) (err error) {
		if err := c.writeSeveral(); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			ctx, interrupt := context.WithCancel(t.Context())
			err = c.identify(ctx, "DeleteMediaFile", &adminv1.DeleteMediaFileRequest{Name: name}, nil, nil,
				func(_ context.Context, _ string, req, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
					ids = append(ids, req.(*adminv1.DeleteMediaFileRequest).GetRequestId())
					interrupt()
					return unknown.Err()
				})
			interrupt()
		}
		return err
	}
	_, id, found := strings.Cut(run(new(cli), "a", "b").Error(), "--request-id ")
	if id, _, _ = strings.Cut(id, ":"); !found || ids[0] == ids[1] || ids[0] == "" || slices.Contains(ids, id) {
		t.Fatalf("writes under %q, to be repeated under %q", ids, id)
	}
	_ = run(&cli{requestID: id}, "b", "a", "c") // It fails like the first.
	if ids[2] != ids[1] || ids[3] != ids[0] || slices.Contains(ids[:4], ids[4]) {
		t.Errorf("the ids of a and b, then of b, a and c are %q", ids)
	}
}

// A command that is interrupted while a write is under way does not pass over in silence that it
// may have happened. Of what was not sent, or only checks, it says nothing of the kind.
func TestAnInterruptedWriteSaysHowToRepeatIt(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		req    *adminv1.CreateAccountRequest
		before bool
		want   string
	}{
		"under way": {&adminv1.CreateAccountRequest{}, false, "--request-id "},
		"a check":   {&adminv1.CreateAccountRequest{ValidateOnly: true}, false, "context canceled"},
		"not sent":  {&adminv1.CreateAccountRequest{}, true, "context canceled"},
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		if tt.before {
			interrupt()
		}
		calls := 0
		err := new(cli).identify(ctx, "CreateAccount", tt.req, nil, nil,
			func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
				calls++
				interrupt()
				return status.FromContextError(ctx.Err()).Err()
			})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if knows := tt.want != "--request-id "; err != nil && knows == strings.Contains(err.Error(), "nobody knows") {
			t.Errorf("%s: %v", name, err)
		}
		if want := map[bool]int{false: 1}[tt.before]; calls != want {
			t.Errorf("%s: asked %d times, want %d", name, calls, want)
		}
		interrupt()
	}
}
