package adminsvc

import (
	"google.golang.org/grpc"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

type secretService struct {
	*Service
	adminv1.UnimplementedSecretServiceServer
}

func (s secretService) RotateSecrets(
	_ *adminv1.RotateSecretsRequest, stream grpc.ServerStreamingServer[adminv1.RotateSecretsResponse],
) error {
	return s.store.RotateSecrets(stream.Context(), func(sealed int) {
		// Who asked may have gone; the rotation then ends with its context.
		_ = stream.Send(&adminv1.RotateSecretsResponse{Sealed: int64(sealed)})
	})
}
