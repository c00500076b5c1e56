package rules

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// SecretPaths are the secret fields that an origin can hold a value in: those of its kind, and that
// of each request header without a public value.
func SecretPaths(o *topologyv1.Origin) []string {
	var paths []string
	switch o.GetKind().(type) {
	case *topologyv1.Origin_S3:
		paths = append(paths, topology.SecretS3Key)
	case *topologyv1.Origin_Gcs:
		paths = append(paths, topology.SecretGCSKey)
	case *topologyv1.Origin_AzureBlob:
		paths = append(paths, topology.SecretSASToken, topology.SecretAccountKey)
	case *topologyv1.Origin_Akeneo:
		paths = append(paths, topology.SecretAkeneoClientSecret, topology.SecretAkeneoPassword)
	}
	for _, h := range o.GetRequestHeaders() {
		if h.GetValue() == "" {
			paths = append(paths, topology.HeaderSecret(h.GetName()))
		}
	}
	return paths
}

// SplitOrigin takes the secrets out of an origin. public is a copy without them; secrets holds
// those that have a value, by path, and is never nil.
func SplitOrigin(o *topologyv1.Origin) (public *topologyv1.Origin, secrets map[string]string) {
	public = proto.CloneOf(o)
	secrets = make(map[string]string)
	take := func(path string, field *string) {
		if *field != "" {
			secrets[path] = *field
			*field = ""
		}
	}
	switch kind := public.GetKind().(type) {
	case *topologyv1.Origin_S3:
		take(topology.SecretS3Key, &kind.S3.SecretAccessKey)
	case *topologyv1.Origin_Gcs:
		take(topology.SecretGCSKey, &kind.Gcs.PrivateKey)
	case *topologyv1.Origin_AzureBlob:
		take(topology.SecretSASToken, &kind.AzureBlob.SasToken)
		take(topology.SecretAccountKey, &kind.AzureBlob.AccountKey)
	case *topologyv1.Origin_Akeneo:
		take(topology.SecretAkeneoClientSecret, &kind.Akeneo.ClientSecret)
		take(topology.SecretAkeneoPassword, &kind.Akeneo.Password)
	}
	for _, h := range public.GetRequestHeaders() {
		take(topology.HeaderSecret(h.GetName()), &h.SecretValue)
	}
	return public, secrets
}

// SecretsSet lists the fields that hold a value as people type them, such as `s3.secretAccessKey`,
// sorted.
func SecretsSet(secrets map[string]string) []string {
	var paths []string
	for path, value := range secrets {
		if value != "" {
			paths = append(paths, fieldpath.JSON(path))
		}
	}
	slices.Sort(paths)
	return paths
}

// MergeSecrets decides what an origin holds in secret after a write. Both origins are public;
// before is nil at creation. A given secret replaces the stored one, a cleared path holds none, and
// any other keeps what was stored, as long as next has the field at all. Of Azure's two credentials
// a given one takes the place of the other.
//
// required lists the stored secrets that the write must bring again, because the origin's target
// changed: see [TargetChanged]. The write is to be refused unless it is empty.
func MergeSecrets(
	before *topologyv1.Origin, stored map[string]string, next *topologyv1.Origin, given map[string]string,
	cleared func(path string) bool,
) (merged map[string]string, required []string) {
	merged = make(map[string]string)
	changed := before != nil && TargetChanged(before, next)
	for _, path := range SecretPaths(next) {
		switch {
		case given[path] != "":
			merged[path] = given[path]
		case stored[path] == "" || cleared(path) || replaced(path, given):
		case changed:
			required = append(required, path)
		default:
			merged[path] = stored[path]
		}
	}
	// What is given for a field that next has no room for is kept for Check to refuse.
	maps.Copy(merged, given)
	slices.Sort(required)
	return merged, required
}

func replaced(path string, given map[string]string) bool {
	return path == topology.SecretSASToken && given[topology.SecretAccountKey] != "" ||
		path == topology.SecretAccountKey && given[topology.SecretSASToken] != ""
}

// TargetChanged says whether secrets stored for one origin would go somewhere else with the other:
// another kind, host, endpoint, bucket, container or storage account, or a further allowed host.
// The scheme and port of a URL are part of its host, because over http everyone on the way could
// read them, and so is what a web server is asked for by and known by.
func TargetChanged(before, next *topologyv1.Origin) bool {
	if topology.KindOf(before) != topology.KindOf(next) {
		return true
	}
	if _, ok := next.GetKind().(*topologyv1.Origin_WebProxy); ok {
		known := make(map[string]bool)
		for _, host := range before.GetWebProxy().GetAllowedHosts() {
			known[strings.ToLower(host)] = true
		}
		return slices.ContainsFunc(next.GetWebProxy().GetAllowedHosts(), func(host string) bool {
			return !known[strings.ToLower(host)]
		})
	}
	return !maps.Equal(reach(before), reach(next))
}

// reach is where an origin's secrets go.
func reach(o *topologyv1.Origin) map[string]string {
	switch kind := o.GetKind().(type) {
	case *topologyv1.Origin_Web:
		web := kind.Web
		return map[string]string{
			"host": siteOf(web.GetBaseUrl()), "host_header": strings.ToLower(web.GetHostHeader()),
			"forward_host_header": strconv.FormatBool(web.GetForwardHostHeader()),
			"tls_server_name":     strings.ToLower(web.GetTlsServerName()), "ca_pem": web.GetCaPem(),
			"tls_verify": strconv.FormatBool(web.TlsVerify == nil || *web.TlsVerify),
		}
	case *topologyv1.Origin_S3:
		return map[string]string{"bucket": kind.S3.GetBucket(), "endpoint": kind.S3.GetEndpoint()}
	case *topologyv1.Origin_Gcs:
		return map[string]string{"bucket": kind.Gcs.GetBucket(), "endpoint": kind.Gcs.GetEndpoint()}
	case *topologyv1.Origin_AzureBlob:
		azure := kind.AzureBlob
		return map[string]string{
			"account": azure.GetAccountName(), "container": azure.GetContainer(), "endpoint": azure.GetEndpoint(),
		}
	case *topologyv1.Origin_Akeneo:
		return map[string]string{"host": siteOf(kind.Akeneo.GetBaseUrl())}
	}
	return nil
}

// siteOf is a URL's scheme, host and port.
func siteOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	return strings.ToLower(u.Scheme + "://" + u.Host)
}
