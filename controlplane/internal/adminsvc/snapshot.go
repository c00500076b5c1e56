package adminsvc

import (
	"google.golang.org/grpc"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

type snapshots struct {
	*Service
	adminv1.UnimplementedSnapshotServiceServer
}

func (s snapshots) SaveSnapshot(
	_ *adminv1.SaveSnapshotRequest, stream grpc.ServerStreamingServer[adminv1.SaveSnapshotResponse],
) error {
	_, err := s.store.Snapshot(stream.Context(), snapshotParts{stream})
	return err
}

// snapshotPart is how many bytes a message carries: well below gRPC's limit of 4 MiB a message.
const snapshotPart = 256 << 10

// snapshotParts sends what is written to it.
type snapshotParts struct {
	stream grpc.ServerStreamingServer[adminv1.SaveSnapshotResponse]
}

func (p snapshotParts) Write(data []byte) (int, error) {
	for sent := 0; sent < len(data); sent += snapshotPart {
		part := data[sent:min(sent+snapshotPart, len(data))]
		if err := p.stream.Send(&adminv1.SaveSnapshotResponse{Data: part}); err != nil {
			return sent, err
		}
	}
	return len(data), nil
}
