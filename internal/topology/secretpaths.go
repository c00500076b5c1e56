package topology

import "strings"

// Paths of the secret fields of each kind of origin, as in OriginSecrets and in [Origin.Secrets].
const (
	SecretS3Key              = "s3.secret_access_key"
	SecretGCSKey             = "gcs.private_key"
	SecretSASToken           = "azure_blob.sas_token"
	SecretAccountKey         = "azure_blob.account_key"
	SecretAkeneoClientSecret = "akeneo.client_secret"
	SecretAkeneoPassword     = "akeneo.password"
)

// HeaderSecret is the path of the secret value of a request header.
func HeaderSecret(name string) string {
	return "request_headers[" + strings.ToLower(name) + "].secret_value"
}
