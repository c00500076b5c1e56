package main

import (
	"context"
	"fmt"
	"slices"
)

// reportCommand writes a page of measurements.
const reportCommand = "report"

// reportBegins is the beginning of the page.
const reportBegins = `# Performance

Written by ` + "`make performance`" + `, which runs what each part names on one machine. Take ratios within one table; the
rest depends on the machine. "new TLS" is a connection with a full handshake (ECDSA P-256) and one request. The bare loop is a
Go program that answers without looking at what it is asked, with a goroutine for each connection.
`

// reported are the measurements of the page.
var reported = []struct {
	title string
	args  []string
	timed bool // takes the flags of the page
}{
	{"Hits, one core for the server", []string{"hits"}, true},
	{"Hits, two cores", []string{"hits", "-cores", "2"}, true},
	{"Latency of hits at half of the maximum rate", []string{"latency"}, true},
	{"Misses", []string{"miss"}, false},
	{"After a restart", []string{"restart"}, false},
}

func writeReport(ctx context.Context, flags []string) error {
	fmt.Print(reportBegins)
	for _, part := range reported {
		args := part.args
		if part.timed {
			args = slices.Concat(args, flags)
		}
		at := slices.IndexFunc(measurements, func(m measurement) bool { return m.name == args[0] })
		fmt.Printf("\n## %s\n\n", part.title)
		if err := carryOut(ctx, measurements[at], args, true); err != nil {
			return err
		}
	}
	return nil
}
