// Package topologyv1 has the resources that an admin, the control plane and the edges share, and
// the text of their definition. What a field means is said in topology.proto.
package topologyv1

import _ "embed"

// Source is the text of topology.proto, whose comments document every field.
//
//go:embed topology.proto
var Source string
