package origin

import (
	"context"
	"crypto/rand"
	"net/http"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// MediaKind is the kind of the Media Library.
const MediaKind = topology.MediaStep

// A kind is what is particular to one kind of storage.
type kind struct {
	name string
	// keyed says that files lie under object keys. What cannot be a key is not there, and nothing is sent: an empty key would
	// list the bucket.
	keyed bool
	// operator says that the URL is the operator's own, which the guard does not concern.
	operator bool
	// build makes the request, all but the conditions and what lets it in. Its error is a *configError or an *unaskedError. It is
	// nil for a kind that this edge does not know.
	build func(c *Client, o *topology.Origin, a *Ask) (*http.Request, error)
	// site names the host that is asked, for a kind that asks several: one in trouble is no reason to leave the others alone.
	site func(o *topology.Origin, a *Ask) string
	// sign lets the request in. It comes after the conditions, which some signatures cover. Its error is like build's. nil signs
	// nothing.
	sign func(ctx context.Context, c *Client, h *hop) error
	// next makes the request that a redirect leads to. nil follows none.
	next func(c *Client, h *hop, location string) (*http.Request, error)
	// code reads the error code from the head and the start of the body of a reply: for an object
	// store of one of 300 and above, for a web server of a 400. nil needs no body.
	code func(header http.Header, body []byte) string
	// elaborate adds to what a table's row says about an answer. It may be nil.
	elaborate func(r *reply, answer *Answer)
	// finish makes a reply what it is for who asked. It may be nil.
	finish func(ask *Ask, r *Response) error
	rows   []row
	// bucket makes the request that lists one object, for a kind with vague rows.
	bucket func(c *Client, o *topology.Origin) (*http.Request, error)
	// deniedAdvice goes with a missing key that is answered with 403.
	deniedAdvice string
}

var (
	mediaKind = &kind{name: MediaKind, keyed: true, operator: true, build: buildMedia, rows: mediaTable}
	webKind   = &kind{name: "web", build: buildWeb, next: followWeb, code: webCode, elaborate: elaborateWeb, rows: webTable}
	s3Kind    = &kind{name: "s3", keyed: true, build: buildS3, sign: signS3, code: s3Code, elaborate: elaborateS3, rows: s3Table,
		deniedAdvice: adviceList}
	gcsKind = &kind{name: "gcs", keyed: true, build: buildGCS, sign: signGCS, code: s3Code, finish: finishGCS, rows: gcsTable,
		bucket: bucketGCS, deniedAdvice: adviceListGCS}
	azureKind  = &kind{name: "azure_blob", keyed: true, build: buildAzure, sign: signAzure, code: azureCode, elaborate: elaborateAzure, rows: azureTable}
	proxyKind  = &kind{name: "web_proxy", build: buildProxy, site: siteOf, next: followProxy, code: webCode, elaborate: elaborateWeb, rows: proxyTable}
	akeneoKind = &kind{name: "akeneo", keyed: true, build: buildAkeneo, sign: signAkeneo, code: akeneoCode, rows: akeneoTable}
)

var unknownKind = &kind{name: "unknown"}

// kindOf returns the kind of an origin, nil standing for the Media Library.
func kindOf(o *topology.Origin) *kind {
	if o == nil {
		return mediaKind
	}
	switch topology.KindOf(o.Spec) {
	case "web":
		return webKind
	case "s3":
		return s3Kind
	case "gcs":
		return gcsKind
	case "azure_blob":
		return azureKind
	case "web_proxy":
		return proxyKind
	case "akeneo":
		return akeneoKind
	default:
		return unknownKind
	}
}

// KindName returns the name of an origin's kind, such as "web"; nil is the Media Library.
func KindName(o *topology.Origin) string { return kindOf(o).name }

// Keyed reports whether an origin holds its files under object keys.
func Keyed(o *topology.Origin) bool { return kindOf(o).keyed }

// RandomKey returns a key that nobody can have, where the origin's files lie.
func RandomKey(o *topology.Origin) string {
	if kindOf(o) == akeneoKind {
		return akeneoFolders[0].folder + rand.Text()
	}
	return rand.Text()
}
