package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// goBenchmarks are those that certs runs, of which each shows a part of what certificates cost.
var goBenchmarks = []struct {
	folder, bench, time string
	rows                []goBenchmark
}{
	{"./edgeagent/internal/certs", "Process/%d$", "1x", []goBenchmark{
		{"listener open", "Process", "ms-to-listen", "ms"},
		{"the last certificate of the file served", "Process", "ms-to-all", "ms"},
		{"CPU time until then", "Process", "ms-CPU-to-all", "ms"},
		{"resident memory for the certificates, 20,000 of them ready", "Process", "MB-added", "MB"},
		{"CPU time of a handshake, certificate on disk", "Process", "us-CPU-handshake", "us"},
		{"CPU time of a handshake for a name that nobody has", "Process", "us-CPU-stranger", "us"},
		{"the same after 5,000 more", "Process", "us-CPU-stranger-later", "us"},
		{"resident memory for 10,000 such names", "Process", "MB-strangers", "MB"},
	}},
	{"./edgeagent/internal/certs", "Get$", "0.5s", []goBenchmark{
		{"look-up of a domain and its certificate", "Get/lookup", "ns/op", "ns"},
		{"certificate that is ready", "Get/ready", "ns/op", "ns"},
		{"certificate on disk", "Get/disk", "ns/op", "ns"},
		{"certificate that is fetched, less the network", "Get/fetched", "ns/op", "ns"},
	}},
	{"./controlplane/internal/domaincheck", "Checks$", "1x", []goBenchmark{
		{"slowest check of all faults in testdata/faults.txt", "Checks", "s-slowest", "s"},
	}},
}

// goBenchmark is a figure of a Go benchmark.
type goBenchmark struct{ what, name, metric, unit string }

// certs measures what certificates of custom domains cost an edge, and how long a check of a domain
// takes, by benchmarks of Go.
func certs(ctx context.Context, b *bench) error {
	t := newTable(fmt.Sprintf("%d domains with certificates", b.domains), "figure")
	for _, one := range goBenchmarks {
		bench := one.bench
		if strings.Contains(bench, "%") {
			bench = fmt.Sprintf(bench, b.domains)
		}
		b.note("%s -bench %s", one.folder, bench)
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", bench, "-benchtime", one.time, one.folder)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
		found := goFigures(out)
		for _, row := range one.rows {
			value, ok := found[row.name+" "+row.metric]
			if !ok {
				return fmt.Errorf("%s shows no %s of %s: -domains is 100000 or 1000000\n%s",
					cmd, row.metric, row.name, out)
			}
			t.add(row.what, value+" "+row.unit)
		}
	}
	t.print(b.out)
	return nil
}

// goFigures reads what benchmarks print, by `name metric`. The number of domains and of processors
// is no part of a name.
func goFigures(out []byte) map[string]string {
	found := make(map[string]string)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if at := strings.LastIndexByte(name, '-'); at >= 0 { // none with a single processor
			name = name[:at]
		}
		if at := strings.LastIndexByte(name, '/'); at >= 0 {
			if _, err := strconv.Atoi(name[at+1:]); err == nil {
				name = name[:at]
			}
		}
		for i := 2; i+1 < len(fields); i += 2 {
			found[name+" "+fields[i+1]] = fields[i]
		}
	}
	return found
}
