package topology

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// KindOf is an origin's kind by the name of its field, empty for one that is not known here.
func KindOf(o *topologyv1.Origin) string {
	switch o.GetKind().(type) {
	case *topologyv1.Origin_Web:
		return "web"
	case *topologyv1.Origin_S3:
		return "s3"
	case *topologyv1.Origin_Gcs:
		return "gcs"
	case *topologyv1.Origin_AzureBlob:
		return "azure_blob"
	case *topologyv1.Origin_WebProxy:
		return "web_proxy"
	case *topologyv1.Origin_Akeneo:
		return "akeneo"
	}
	return ""
}

// Location is where an origin's files lie, for people: a URL, with a bucket's own endpoint behind
// it, or the hosts that a web proxy may reach. Empty for a kind that is not known here.
func Location(o *topologyv1.Origin) string {
	bucket := func(scheme, name, prefix, endpoint string) string {
		location := scheme + "://" + name
		if prefix != "" {
			location += "/" + strings.TrimPrefix(prefix, "/")
		}
		if endpoint != "" {
			location += " at " + endpoint
		}
		return location
	}
	switch k := o.GetKind().(type) {
	case *topologyv1.Origin_Web:
		return k.Web.GetBaseUrl()
	case *topologyv1.Origin_S3:
		return bucket("s3", k.S3.GetBucket(), k.S3.GetPrefix(), k.S3.GetEndpoint())
	case *topologyv1.Origin_Gcs:
		return bucket("gs", k.Gcs.GetBucket(), k.Gcs.GetPrefix(), k.Gcs.GetEndpoint())
	case *topologyv1.Origin_AzureBlob:
		b := k.AzureBlob
		return bucket("azblob", b.GetAccountName()+"/"+b.GetContainer(), b.GetPrefix(), b.GetEndpoint())
	case *topologyv1.Origin_WebProxy:
		return strings.Join(k.WebProxy.GetAllowedHosts(), ", ")
	case *topologyv1.Origin_Akeneo:
		return k.Akeneo.GetBaseUrl()
	}
	return ""
}

// Keyed reports whether an origin holds its files under object keys: it is asked for
// [Target.Object], not for a path.
func Keyed(o *topologyv1.Origin) bool {
	switch KindOf(o) {
	case "s3", "gcs", "azure_blob", "akeneo":
		return true
	}
	return false
}

// targetOf hashes what decides which bytes a path stands for at an origin. URLs count as they are
// spelled: a needless difference only costs a revalidation. The hosts that a web proxy may reach
// count, so that none of its stored replies outlives the permission.
func targetOf(o *topologyv1.Origin) (uint64, bool) {
	kind := KindOf(o)
	h := fieldHash{}
	h.add(kind)
	switch kind {
	case "web":
		web := o.GetWeb()
		h.add(web.GetBaseUrl())
		h.addFlag(web.GetForwardHostHeader())
		// Only where they are set, so that the hash of every other origin stays what it was.
		if host, name := web.GetHostHeader(), web.GetTlsServerName(); host != "" || name != "" {
			h.add(strings.ToLower(host))
			h.add(strings.ToLower(name))
		}
	case "s3":
		s3 := o.GetS3()
		h.add(s3.GetBucket())
		h.add(s3.GetPrefix())
		h.add(cmp.Or(s3.GetRegion(), DefaultS3Region))
		h.add(s3.GetEndpoint())
		h.addFlag(s3.GetForcePathStyle())
		h.addFlag(s3.GetPercentEncodeKeys())
	case "gcs":
		gcs := o.GetGcs()
		h.add(gcs.GetBucket())
		h.add(gcs.GetPrefix())
		h.add(gcs.GetEndpoint())
	case "azure_blob":
		azure := o.GetAzureBlob()
		h.add(azure.GetAccountName())
		h.add(azure.GetContainer())
		h.add(azure.GetPrefix())
		h.add(azure.GetEndpoint())
	case "web_proxy":
		hosts := slices.Clone(o.GetWebProxy().GetAllowedHosts())
		for i, host := range hosts {
			hosts[i] = strings.ToLower(host)
		}
		slices.Sort(hosts)
		for _, host := range slices.Compact(hosts) {
			h.add(host)
		}
	case "akeneo":
		h.add(o.GetAkeneo().GetBaseUrl())
	default:
		return 0, false
	}
	return h.sum(), true
}

// walkStart is the version of the Media Library's step, which begins every walk.
const walkStart = 0

// nextVersion is the version of the step after one of version prev.
func nextVersion(prev uint64, originUID string, target uint64) uint64 {
	h := fieldHash{}
	h.addNumber(prev)
	h.add(originUID)
	h.addNumber(target)
	return h.sum()
}

// fieldHash is the first 8 bytes of SHA-256 over fields with their lengths. Edges compare such
// hashes with what they stored before a restart or an upgrade, so it must not change.
type fieldHash struct{ b []byte }

func (h *fieldHash) add(field string) {
	h.b = binary.AppendUvarint(h.b, uint64(len(field)))
	h.b = append(h.b, field...)
}

func (h *fieldHash) addNumber(n uint64) { h.b = binary.LittleEndian.AppendUint64(h.b, n) }

func (h *fieldHash) addFlag(on bool) {
	if on {
		h.b = append(h.b, 1)
	} else {
		h.b = append(h.b, 0)
	}
}

func (h *fieldHash) sum() uint64 {
	sum := sha256.Sum256(h.b)
	return binary.LittleEndian.Uint64(sum[:8])
}
