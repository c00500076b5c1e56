package admincli

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// localTimeout bounds the question where a token lies on this machine.
const localTimeout = 2 * time.Second

// tokenText is the form of a token. Nothing else is read from a file that a control plane names.
var tokenText = regexp.MustCompile(`^ew1_([a-z2-7]{10})_[a-z2-7]{32}_[0-9a-f]{8}$`)

// localToken is the token that the first start of a control plane on this machine has written, if
// the user may read it. The control plane names it to callers on this machine that have no token.
func (c *cli) localToken(ctx context.Context, conn *grpc.ClientConn) string {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	_, err := adminv1.NewTokenServiceClient(conn).WhoAmI(ctx, new(adminv1.WhoAmIRequest))
	if status.Code(err) != codes.Unauthenticated {
		return "" // it asks for none, or the command will find out what is wrong
	}
	for _, detail := range status.Convert(err).Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || filepath.Base(info.GetMetadata()["tokenFile"]) != "root-token" {
			continue
		}
		c.tokenFile = info.GetMetadata()["tokenFile"]
		text, err := os.ReadFile(c.tokenFile)
		if token := strings.TrimSpace(string(text)); err == nil && tokenText.MatchString(token) {
			return token
		}
	}
	return ""
}

// tokenAdvice says how to come by a token.
func (c *cli) tokenAdvice() string {
	const advice = "Put a token into EDGEWALK_TOKEN, or keep one with edgewalk login."
	if c.tokenFile == "" {
		return advice
	}
	return advice + " That of the first start is in " + c.tokenFile +
		", if it may be read; edgewalk token reset makes another."
}
