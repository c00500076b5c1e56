package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// amazonBucket is the form of bucket names at Amazon S3
// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html).
var amazonBucket = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// OriginWarnings returns what is allowed for an origin and can hardly work: credentials of which a
// part is missing, and a bucket that Amazon S3 cannot have. They are no violations, because an
// exported account has no secrets and is to be applied all the same. The origin is as admins see
// it, with `secrets_set`.
func OriginWarnings(o *topologyv1.Origin) (warnings []string) {
	set := func(field string) bool { return slices.Contains(o.GetSecretsSet(), fieldpath.JSON(field)) }
	together := func(parts map[string]bool) {
		var missing, given []string
		for field, ok := range parts {
			if ok {
				given = append(given, fieldpath.JSON(field))
			} else {
				missing = append(missing, fieldpath.JSON(field))
			}
		}
		if len(missing) == 0 || len(given) == 0 {
			return
		}
		slices.Sort(missing)
		slices.Sort(given)
		warnings = append(warnings, fmt.Sprintf("%s set without %s: the origin will refuse what it is asked",
			are(given), strings.Join(missing, " and ")))
	}
	switch kind := o.GetKind().(type) {
	case *topologyv1.Origin_S3:
		if !kind.S3.GetUseAmbientCredentials() {
			together(map[string]bool{
				"s3.access_key_id": kind.S3.GetAccessKeyId() != "", topology.SecretS3Key: set(topology.SecretS3Key),
			})
		}
		if bucket := kind.S3.GetBucket(); kind.S3.GetEndpoint() == "" && !amazonBucket.MatchString(bucket) {
			warnings = append(warnings, fmt.Sprintf("s3.bucket: Amazon S3 has no bucket %q, whose names are 3 to 63 of a-z, 0-9, . and -; "+
				"a bucket elsewhere needs s3.endpoint", bucket))
		}
	case *topologyv1.Origin_Gcs:
		together(map[string]bool{
			"gcs.client_email": kind.Gcs.GetClientEmail() != "", topology.SecretGCSKey: set(topology.SecretGCSKey),
		})
	case *topologyv1.Origin_Akeneo:
		together(map[string]bool{
			"akeneo.base_url": true, "akeneo.client_id": kind.Akeneo.GetClientId() != "",
			"akeneo.username":                 kind.Akeneo.GetUsername() != "",
			topology.SecretAkeneoClientSecret: set(topology.SecretAkeneoClientSecret),
			topology.SecretAkeneoPassword:     set(topology.SecretAkeneoPassword),
		})
	}
	return warnings
}

func are(fields []string) string {
	verb := " is"
	if len(fields) > 1 {
		verb = " are"
	}
	return strings.Join(fields, " and ") + verb
}
