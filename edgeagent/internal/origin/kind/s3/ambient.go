package s3

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// ambientRetry is for how long it stands that the machine has no credentials: asking an absent
// metadata service takes seconds.
const ambientRetry = 5 * time.Second

// ambient gives the credentials of the machine that the edge runs on, as every tool of Amazon's
// finds them: the environment, the shared files, a web identity, the container's or the instance's
// role. They are got once for all requests and renewed before they expire.
type ambient struct {
	allowed bool

	mu       sync.Mutex
	provider aws.CredentialsProvider
	failed   time.Time // the last time there were none
}

// credentials returns them, or why there are none. What the SDK says is not passed on: it may name
// files and roles of the operator's.
func (m *ambient) credentials(ctx context.Context) (aws.Credentials, error) {
	if !m.allowed {
		return aws.Credentials{}, kind.WrongConfig("the operator of this edge lends no credentials to origins",
			"start the edge with --allow-ambient-credentials, or give the origin its own accessKeyId and secretAccessKey")
	}
	none := kind.WrongConfig("the edge has no ambient credentials",
		"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the edge's environment, or give its machine a role")
	provider, err := m.load(ctx)
	if err != nil {
		return aws.Credentials{}, none
	}
	credentials, err := provider.Retrieve(ctx)
	switch {
	case ctx.Err() != nil:
		return aws.Credentials{}, context.Cause(ctx)
	case err != nil || !credentials.HasKeys():
		m.mu.Lock()
		m.failed = time.Now()
		m.mu.Unlock()
		return aws.Credentials{}, none
	}
	return credentials, nil
}

var errNoAmbient = errors.New("there were no credentials a moment ago")

// load finds out once where the credentials come from.
func (m *ambient) load(ctx context.Context) (aws.CredentialsProvider, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.failed.IsZero() && time.Since(m.failed) < ambientRetry {
		return nil, errNoAmbient
	}
	if m.provider != nil {
		return m.provider, nil
	}
	// A region, so that the look for one stays away from the network. Requests are signed for the
	// bucket's.
	cfg, err := config.LoadDefaultConfig(context.WithoutCancel(ctx), config.WithRegion(topology.DefaultS3Region))
	if err != nil || cfg.Credentials == nil {
		m.failed = time.Now()
		return nil, errNoAmbient
	}
	m.provider = cfg.Credentials
	return m.provider, nil
}
