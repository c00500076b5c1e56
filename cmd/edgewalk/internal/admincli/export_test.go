package admincli

import (
	"context"
	"io"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// exports answers the calls of an export.
type exports func(*adminv1.ExportManifestRequest) (*adminv1.ExportManifestResponse, error)

func (e exports) Invoke(_ context.Context, _ string, req, reply any, _ ...grpc.CallOption) error {
	response, err := e(req.(*adminv1.ExportManifestRequest))
	if err == nil {
		proto.Merge(reply.(proto.Message), response)
	}
	return err
}

func (exports) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	panic("an export has no streams")
}

// An export of an account that changes meanwhile begins again, and is of one moment. It gives up at
// some time.
func TestAnExportBeginsAgain(t *testing.T) {
	t.Parallel()
	changed, err := status.New(
		codes.Aborted, "changed while it was exported",
	).WithDetails(&errdetails.ErrorInfo{Reason: "ACCOUNT_CHANGED"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		changes int
		want    string // empty: an error
	}{
		{0, "account:\n  id: at0\n---\naccount:\n  id: at0\n"},
		{3, "account:\n  id: at3\n---\naccount:\n  id: at3\n"},
		{4, ""},
	} {
		times := 0
		server := exports(func(req *adminv1.ExportManifestRequest) (*adminv1.ExportManifestResponse, error) {
			id := "at" + string('0'+rune(times))
			switch {
			case req.GetPageSize() == 0:
				t.Error("asks for no parts")
			case req.GetPageToken() != "" && req.GetPageToken() != id:
				t.Errorf("token %q of another export, at %s", req.GetPageToken(), id)
			case req.GetPageToken() == id && times < tt.changes:
				times++
				return nil, changed.Err()
			}
			response := &adminv1.ExportManifestResponse{Manifest: &adminv1.Manifest{Account: &topologyv1.Account{
				Id: id,
			}}}
			if req.GetPageToken() == "" {
				response.NextPageToken = id
			}
			return response, nil
		})
		text, err := (&cli{output: "yaml"}).export(t.Context(), adminv1.NewManifestServiceClient(server), "accounts/a",
			io.Discard)
		if tt.want == "" {
			if err == nil || !strings.Contains(err.Error(), "changed while") {
				t.Errorf("after %d changes: %v", tt.changes, err)
			}
			continue
		}
		if err != nil || text.String() != tt.want {
			t.Errorf("after %d changes: %q, %v", tt.changes, text, err)
		}
	}
}
