// Package routetest helps tests to make steps of a routing table.
package routetest

import (
	"iter"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// Records are the records of a step.
func Records(records ...topology.Record) iter.Seq2[topology.Record, error] {
	return func(yield func(topology.Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}
