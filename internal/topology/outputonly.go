package topology

import (
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// computed are the fields that are made when a resource is read.
var computed = []protoreflect.Name{
	"name", "id", "uid", "etag", "walk", "urls", "more_urls", "effective_limits", "secrets_set", "health",
	"records", "ownership", "routing", "certificate",
}

// managed are the fields that are stored and that no admin writes.
var managed = []protoreflect.Name{"state", "create_time", "update_time", "size_bytes", "sha256"}

// OutputOnly reports whether a field of a resource is one that writes ignore (AIP-203). A purge's
// are others.
func OutputOnly(field protoreflect.Name) bool {
	return Computed(field) || slices.Contains(managed, field)
}

// Computed reports whether a field of a resource is made when the resource is read, and never
// stored. Of a purge, revision, state and edges are computed too.
func Computed(field protoreflect.Name) bool { return slices.Contains(computed, field) }
