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

// position is what a bookmark says.
type position struct {
	revision int64
	digest   topology.Digest
	known    bool // the digest
	asOf     time.Time
}

// bookmarks keeps the encoding of the last bookmark. Edges that are in step get the same one every
// few seconds, and encoding it for each would be most of the garbage of idle streams.
type bookmarks struct {
	last atomic.Pointer[encodedBookmark]
}

type encodedBookmark struct {
	at    position
	frame frame
}

// frame returns a bookmark.
func (s *bookmarks) frame(want position) (frame, error) {
	if last := s.last.Load(); last != nil && last.at == want {
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
	s.last.Store(&encodedBookmark{want, f})
	return f, nil
}
