// Command bench measures the real edgewalk binary, side by side with nginx and Varnish where they
// do the same, on the machine it runs on. README.md says what each figure means.
//
// It owns the processes it starts, their folders under one temporary folder, and the origins, which
// are in its own process.
//
// What always holds: everything listens on loopback only and is bounded in time and number; all of
// it is stopped and removed at the end, also when interrupted; figures are for reading, and none of
// them makes the program fail.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags that all measurements share. Zero values mean each measurement's own
// default.
type options struct {
	binary   string
	against  string
	duration time.Duration
	rounds   int
	count    int
	edges    int
	objects  int
	domains  int
	only     string
	scale    float64
	cores    int
	profile  string
	verbose  bool
	out      io.Writer // for tables and what is said of them
}

// measurement is one subcommand.
type measurement struct {
	name, about string
	limit       time.Duration // the time after which it is given up
	run         func(context.Context, *bench) error
	more        string // what --help says besides
}

var measurements = []measurement{
	{"hits", "requests and bytes per second of cached files, beside nginx and Varnish", 15 * time.Minute, hits, ""},
	{"latency", "time of hits at half of the maximum rate, open loop, beside nginx", 15 * time.Minute, latency, ""},
	{"apply", "time from a change of the config to the first reply by it at the last of the edges", 10 * time.Minute, apply, ""},
	{"memory", "resident memory: idle, with 100,000 objects, with 100,000 domains", 10 * time.Minute, memory, ""},
	{"idle", "resident memory of each of 20,000 connections that stay after one request", 10 * time.Minute, idle, ""},
	{"miss", "what the edge adds to the time to first byte of a file that is not cached; walks over origins that lack it", 10 * time.Minute, miss, ""},
	{"coalesce", "1,000 clients at once for one file that is not cached, behind a slow origin", 5 * time.Minute, coalesce, ""},
	{"trouble", "other endpoints while 1,000 clients wait for an origin that stalls; a walk past a dead origin", 5 * time.Minute, trouble, ""},
	{"fleet", "what a control plane does for many edges, many writers and many domains, beside the goals", 2 * time.Hour, fleetFigures, fleetHelp()},
	{"certs", "what 100,000 or 1,000,000 certificates of domains cost an edge; the slowest check of a domain", 10 * time.Minute, certs, ""},
	{"restart", "time from exec to hits after a restart with 100,000 objects", 10 * time.Minute, restart, ""},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong use")

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "help" || strings.HasPrefix(args[0], "-h") || args[0] == "--help" {
		usage()
		return nil
	}
	if args[0] == streamsCommand {
		return serveStreams(ctx, args[1:])
	}
	if args[0] == bareCommand && len(args) == 2 {
		return serveBare(ctx, args[1])
	}
	if args[0] == openLoopCommand && len(args) == 5 {
		return askOpenLoop(ctx, args[1:], os.Stdout)
	}
	if args[0] == reportCommand {
		return writeReport(ctx, args[1:])
	}
	_, err := carryOut(ctx, args, options{out: os.Stdout})
	return err
}

func usage() {
	fmt.Println("Usage: go run ./bench MEASUREMENT [flags]")
	fmt.Println()
	for _, m := range measurements {
		fmt.Printf("  %-10s %s\n", m.name, m.about)
	}
	fmt.Println()
	fmt.Println(
		"MEASUREMENT --help lists the flags. Peers and load tools: " + strings.Join(packages(), ", ") +
			"; what is missing is left out.",
	)
}

// carryOut makes the measurement that args name, with the options that they do not name taken from
// o. It returns what it has found out, also with an error.
func carryOut(ctx context.Context, args []string, o options) (*bench, error) {
	at := slices.IndexFunc(measurements, func(m measurement) bool { return m.name == args[0] })
	if at < 0 {
		return nil, fmt.Errorf("%w: no measurement %q; see --help", errUsage, args[0])
	}
	m := measurements[at]
	flags := flag.NewFlagSet(m.name, flag.ContinueOnError)
	flags.StringVar(&o.binary, "edgewalk", o.binary, "the `binary` to measure (default: built from this checkout)")
	flags.StringVar(&o.against, "against", "", "another edgewalk `binary` to measure beside it, such as that of the commit before (hits, miss)")
	flags.DurationVar(&o.duration, "duration", 0, "how long each load runs (hits: 5s)")
	flags.IntVar(&o.rounds, "rounds", 0, "how often each figure is taken, in turn with its peers (hits: 5, miss: 5, restart: 3, trouble: 3, coalesce: 1)")
	flags.IntVar(&o.count, "count", 0, "requests, changes or clients (apply: 200, fleet: 200, miss: 5000 a round, coalesce: 1000, trouble: 2000)")
	flags.IntVar(&o.edges, "edges", 0, "edges of apply (default: first 2, then 20)")
	flags.IntVar(&o.objects, "objects", 100_000, "cached objects of memory and restart")
	flags.IntVar(&o.domains, "domains", 100_000, "domains of memory, 0 for none, and of certs, 100000 or 1000000")
	flags.StringVar(&o.only, "only", "", "the `load`, such as \"h2 TLS 1 KB\" (hits), or the parts, such as \"writes,reach\" (fleet); default: all")
	flags.IntVar(&o.cores, "cores", 1, "`cores` for each server: 1, or 2 of a machine's only two, which the generator shares then (hits, latency)")
	flags.Float64Var(&o.scale, "scale", 1, "what the sizes and times of fleet are multiplied by: 0.01 for a try")
	flags.StringVar(&o.profile, "perf", "", "write a perf(1) profile of the edge under the first load to this `file`, and measure nothing (hits)")
	flags.BoolVar(&o.verbose, "v", o.verbose, "show what is being done")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "bench %s: %s\n\n%s", m.name, m.about, m.more)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return nil, err
	case err != nil || flags.NArg() > 0:
		return nil, fmt.Errorf("%w: see %s --help", errUsage, m.name)
	}
	ctx, cancel := context.WithTimeout(ctx, m.limit)
	defer cancel()
	b, err := newBench(ctx, o)
	if err != nil {
		return nil, err
	}
	defer b.close()
	if o.out == os.Stdout {
		fmt.Println(b.heading(m.name, args))
	}
	if err := m.run(ctx, b); err != nil {
		return b, fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return b, nil
}
