package origin

// gcsTable says what the answers of Google Cloud Storage's XML API mean.
var gcsTable = table(usable, []row{
	{says: "404 NoSuchKey", when: coded(404, "NoSuchKey"), outcome: NotHere},
	{says: "404 for a missing bucket", when: coded(404, "NoSuchBucket"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "check gcs.bucket"},
	{says: "404 that does not say what is missing", when: status(404), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "check gcs.bucket and that the endpoint is a Cloud Storage", vague: true},
	{says: "SlowDown, ServiceUnavailable", when: coded(0, "SlowDown", "ServiceUnavailable", "TooManyRequests"), reason: Busy, proxy: "destination_unavailable", advice: adviceBusy},
	{says: "requester pays", when: coded(400, "UserProjectMissing"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "add a request header x-goog-user-project with the project to bill"},
	{says: "403 AccessDenied", when: coded(403, "AccessDenied"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice:   "grant storage.objects.get; if files are merely missing, grant storage.objects.list or set probe_key to an object that exists",
		deniable: true},
	{says: "401 for a token or for none", when: status(401), reason: Misconfigured, proxy: "proxy_configuration_error", advice: adviceGCSKey},
}, rest)

// azureTable says what the answers of Azure Blob Storage mean.
var azureTable = table(usable, []row{
	{says: "404 BlobNotFound", when: coded(404, "BlobNotFound"), outcome: NotHere},
	{says: "404 for a missing container", when: coded(404, "ContainerNotFound"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "check azure_blob.container"},
	{says: "404 of a private container", when: coded(404, "ResourceNotFound"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "check azure_blob.container; a private one needs sas_token or account_key"},
	{says: "404 that does not say the blob is missing", when: status(404), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "check account_name, container and endpoint"},
	{says: "ServerBusy", when: coded(0, "ServerBusy"), reason: Busy, proxy: "destination_unavailable", advice: adviceBusy},
	{says: "bad signature", when: coded(0, "AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation"), reason: Misconfigured,
		proxy: "proxy_configuration_error", advice: "check account_key, or sas_token and when it expires, and the clock of the edge"},
	{says: "403 Authorization*", when: authorization, reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "let sas_token read objects of this container from the edge's address, and check the storage account's firewall"},
	{says: "public access is off", when: coded(409, "PublicAccessNotPermitted"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "set sas_token or account_key"},
	{says: "archived blob", when: coded(409, "BlobArchived", "BlobBeingRehydrated"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "move the blob to the hot or cool tier"},
}, rest)

// proxyTable says what the answers of a host that a URL names mean.
var proxyTable = table([]row{
	{says: "200 text/html for an image, video or font extension", when: pageForURL, outcome: NotHere, reason: SoftNotFound},
}, usable, []row{
	{says: "404, 410", when: status(404, 410), outcome: NotHere},
	{says: "3xx, not followed", when: redirects, reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "add the host that it leads to to web_proxy.allowed_hosts, if it may be fetched from"},
}, strayRows("the server does not serve the host of the URL: correct the URL, or the host's DNS"), rest)

// akeneoTable says what the answers of Akeneo's REST API mean.
var akeneoTable = table(usable, []row{
	{says: "404 for a file", when: coded(404, "NoFile"), outcome: NotHere},
	{says: "404 that does not name a file", when: status(404), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "check that akeneo.base_url is a PIM that has this kind of media files"},
	{says: "401 for a new token", when: status(401), reason: Misconfigured, proxy: "proxy_configuration_error", advice: adviceAkeneo},
	{says: "403", when: status(403), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "let the connection's role use the web API and read media files"},
}, rest)

func authorization(r *reply) bool {
	return r.status == 403 && len(r.code) >= len("Authorization") && r.code[:len("Authorization")] == "Authorization"
}
