package admincli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/edgewalk/edgewalk/internal/apitoken"
	"github.com/edgewalk/edgewalk/internal/bearer"
)

// localTimeout bounds the question where a token lies on this machine.
const localTimeout = 2 * time.Second

// localToken is the token that the first start of a control plane on this machine has written. The
// control plane names its file to a health check, which needs no token, if the user may read it.
func (c *cli) localToken(ctx context.Context, conn *grpc.ClientConn) string {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	var header metadata.MD
	_, err := healthv1.NewHealthClient(conn).Check(
		metadata.AppendToOutgoingContext(ctx, bearer.TokenFileField, "?"), new(healthv1.HealthCheckRequest),
		grpc.Header(&header))
	if err != nil {
		return "" // the command will find out what is wrong
	}
	for _, file := range header.Get(bearer.TokenFileField) {
		if filepath.Base(file) != "root-token" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		token := strings.TrimSpace(string(text))
		if _, ok := apitoken.ID(token); ok { // nothing else is read from a file that a control plane names
			return token
		}
	}
	return ""
}

// tokenAdvice says how to come by a token.
const tokenAdvice = "Put a token into EDGEWALK_TOKEN, or keep one with edgewalk login. That of the first start is in root-token in\n" +
	"  the control plane's --data-dir, where its user's commands find it; edgewalk token reset makes another."
