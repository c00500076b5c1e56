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

// ambientRetry is how long the machine is not asked again after it had no credentials, because
// asking an absent metadata service takes seconds.
const ambientRetry = 5 * time.Second

// ambient has the credentials of the machine that the edge runs on, found in the order of Amazon's
// tools: the environment, the shared files, a web identity, the container's role, the instance's
// role. They are fetched once for all requests, and again before they expire.
type ambient struct {
	allowed bool

	mu       sync.Mutex
	provider aws.CredentialsProvider
	failed   time.Time // the last time there were none
}

// credentials returns the credentials, or an error if there are none. The error leaves out what the
// SDK says, because that may name files and roles of the operator.
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

// load finds the source of the credentials, once.
func (m *ambient) load(ctx context.Context) (aws.CredentialsProvider, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.failed.IsZero() && time.Since(m.failed) < ambientRetry {
		return nil, errNoAmbient
	}
	if m.provider != nil {
		return m.provider, nil
	}
	// The region is set so that the SDK does not look for one on the network. Requests are signed
	// for the bucket's region.
	cfg, err := config.LoadDefaultConfig(context.WithoutCancel(ctx), config.WithRegion(topology.DefaultS3Region))
	if err != nil || cfg.Credentials == nil {
		m.failed = time.Now()
		return nil, errNoAmbient
	}
	m.provider = cfg.Credentials
	return m.provider, nil
}
