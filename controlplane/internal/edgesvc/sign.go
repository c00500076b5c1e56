package edgesvc

import (
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// sign is what a bookmark says.
type sign struct {
	revision int64
	digest   topology.Digest
	known    bool // the digest
	asOf     time.Time
}

// signs keeps the last bookmark in its encoding. Edges that are in step are told the same, every
// few seconds: encoding it for each would be most of the garbage of idle streams.
type signs struct{ last atomic.Pointer[signed] }

type signed struct {
	sign  sign
	frame frame
}

// frame returns a bookmark.
func (s *signs) frame(want sign) (frame, error) {
	if last := s.last.Load(); last != nil && last.sign == want {
		return last.frame, nil
	}
	b := &edgev1.Bookmark{Revision: want.revision, AsOf: timestamppb.New(want.asOf)}
	if want.known {
		b.Digest = want.digest[:]
	}
	encoded, err := proto.Marshal(&edgev1.SyncResponse{Message: &edgev1.SyncResponse_Bookmark{Bookmark: b}})
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode a bookmark: %v", err)
	}
	f := frame{encoded}
	s.last.Store(&signed{want, f})
	return f, nil
}
