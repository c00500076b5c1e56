package main

import (
	"maps"
	"testing"
)

// Figures are read from what `go test -bench` prints.
func TestGoFigures(t *testing.T) {
	got := goFigures([]byte(`goos: linux
BenchmarkProcess/100000-2         	       1	46792557262 ns/op	        99.25 MB-added	   41.67 ms-to-listen
BenchmarkGet/ready-16             	 8015661	        70.61 ns/op
BenchmarkGet/disk                 	   25050	     32943 ns/op
PASS
ok  	example.com/certs	1.2s
`))
	want := map[string]string{
		"Process ns/op": "46792557262", "Process MB-added": "99.25", "Process ms-to-listen": "41.67",
		"Get/ready ns/op": "70.61", "Get/disk ns/op": "32943",
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
