package origin

import (
	"cmp"
	"crypto/rand"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/akeneo"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/azureblob"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/gcs"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/media"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/s3"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/web"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/webproxy"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/token"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// MediaKind is the kind of the Media Library.
const MediaKind = topology.MediaStep

// newKinds returns the kinds by their names. A new one is registered here.
func newKinds(cfg *Config, tokens *token.Cache) map[string]*kind.Kind {
	kinds := make(map[string]*kind.Kind)
	for _, k := range []*kind.Kind{
		media.New(cfg.MediaURL, cfg.MediaToken), web.Kind, s3.New(cfg.AllowAmbientCredentials), gcs.New(tokens),
		azureblob.Kind, webproxy.Kind, akeneo.New(tokens),
	} {
		kinds[k.Name] = k
	}
	return kinds
}

var unknownKind = &kind.Kind{Name: "unknown"}

// kindOf returns the kind of an origin, nil standing for the Media Library.
func (c *Client) kindOf(o *topology.Origin) *kind.Kind {
	return cmp.Or(c.kinds[KindName(o)], unknownKind)
}

// KindName returns the name of an origin's kind, such as "web"; nil is the Media Library.
func KindName(o *topology.Origin) string {
	if o == nil {
		return MediaKind
	}
	return cmp.Or(topology.KindOf(o.Spec), unknownKind.Name)
}

// Keyed reports whether an origin holds its files under object keys; nil is the Media Library.
func Keyed(o *topology.Origin) bool { return o == nil || topology.Keyed(o.Spec) }

// RandomKey returns a random key, which no file has, where the origin's files lie.
func (c *Client) RandomKey(o *topology.Origin) string { return randomKey(c.kindOf(o)) }

func randomKey(k *kind.Kind) string { return k.Folder + rand.Text() }
