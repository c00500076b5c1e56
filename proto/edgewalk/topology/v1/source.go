package topologyv1

import _ "embed"

// Source is the text of topology.proto, whose comments document every field.
//
//go:embed topology.proto
var Source string
