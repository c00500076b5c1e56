package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// reportCommand writes a page of measurements, and a summary of it into README.
const reportCommand = "report"

// reportBegins is the beginning of the page.
const reportBegins = `# Performance

Written by ` + "`make performance`" + `, which runs what each part names on one machine. Take ratios within one table; the
rest depends on the machine. "new TLS" is a connection with a full handshake (ECDSA P-256) and one request. The bare loop is a
Go program that answers without looking at what it is asked, with a goroutine for each connection.

%s`

// reported are the measurements of the page. All of them take about 10 minutes.
var reported = []struct {
	title string
	args  []string
}{
	{"Hits, one core for the server", []string{"hits", "-duration", "1s", "-rounds", "9"}},
	{"Hits, two cores", []string{"hits", "-duration", "1s", "-rounds", "3", "-cores", "2"}},
	{"Latency of hits at half of the maximum rate", []string{"latency", "-duration", "2s", "-rounds", "15"}},
	{"Idle connections", []string{"idle"}},
	{"Misses", []string{"miss"}},
	{"After a restart", []string{"restart"}},
}

// The summary stands between these lines of README.
const (
	summaryBegins = "<!-- Written by make performance. -->\n"
	summaryEnds   = "<!-- End of what make performance writes. -->\n"
)

// figure is a line of the summary.
type figure struct {
	part string
	what string
	// values are those of the servers, by name.
	values map[string]string
}

// writeReport writes the page and the summary. What cannot be measured is missing in them, and an
// error at the end.
func writeReport(ctx context.Context, args []string) error {
	var o options
	var page, readme string
	flags := flag.NewFlagSet(reportCommand, flag.ContinueOnError)
	flags.StringVar(&o.binary, "edgewalk", "", "the `binary` to measure (default: built from this checkout)")
	flags.StringVar(&page, "page", "docs/performance.md", "the `file` to write")
	try := flags.Bool("try", false, "take one short round of everything, to see that it works")
	flags.StringVar(&readme, "readme", "README.md", "the `file` with the summary")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil || flags.NArg() > 0:
		return fmt.Errorf("%w: see %s --help", errUsage, reportCommand)
	}
	before, after, err := cutSummary(readme)
	if err != nil {
		return err
	}
	o.verbose, o.out = true, new(bytes.Buffer)
	shared, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer shared.close()
	o.binary = shared.binary
	text := fmt.Appendf(nil, reportBegins, shared.about())
	var failed []error
	var figures []figure
	for _, part := range reported {
		var out bytes.Buffer
		o.out = &out
		args := part.args
		if *try {
			args = slices.Concat(args, []string{"-duration", "1s", "-rounds", "1", "-count", "100", "-objects", "2000"})
		}
		b, err := carryOut(ctx, args, o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed = append(failed, err)
			fmt.Fprintln(os.Stderr, err)
		}
		if b != nil {
			figures = append(figures, b.figures...)
		}
		text = fmt.Appendf(text, "\n## %s\n\n    go run ./bench %s\n\n%s\n", part.title, strings.Join(args, " "),
			bytes.TrimRight(out.Bytes(), "\n"))
	}
	failed = append(failed, os.WriteFile(page, text, 0o644),
		os.WriteFile(readme, slices.Concat(before, summary(figures, shared.about()), after), 0o644))
	return errors.Join(failed...)
}

// cutSummary returns what a file has before and behind the summary.
func cutSummary(file string) (before, after []byte, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	begin, end := bytes.Index(text, []byte(summaryBegins)), bytes.Index(text, []byte(summaryEnds))
	if begin < 0 || end < begin {
		return nil, nil, fmt.Errorf("%s has no place for the summary: it lies between the lines %q and %q", file,
			summaryBegins, summaryEnds)
	}
	return text[:begin+len(summaryBegins)], text[end:], nil
}

// summary is a table for each part that has figures.
func summary(figures []figure, about string) []byte {
	var b bytes.Buffer
	servers := []string{"edgewalk", "nginx", "varnish"}
	part := ""
	for _, f := range figures {
		if f.part != part {
			part = f.part
			fmt.Fprintf(&b, "\n| %s | %s | %s |\n|---|---|---|---|---|\n", part, strings.Join(servers, " | "), ratioOf)
		}
		fmt.Fprintf(&b, "| %s |", f.what)
		for _, name := range append(servers, ratioOf) {
			value := f.values[name]
			if value == "" {
				value = "-"
			}
			fmt.Fprintf(&b, " %s |", value)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\n%s\n", about)
	return b.Bytes()
}

// ratioOf names the value that is edgewalk's to nginx's.
const ratioOf = "edgewalk/nginx"

// about says what the figures were taken of and on, for people.
func (b *bench) about() string {
	return fmt.Sprintf("%s; load of others before %s; %s. %s UTC.\n", machine(), loadAverage(),
		strings.Join(append([]string{b.version + " at " + commit()}, peerVersions()...), ", "),
		time.Now().UTC().Format("2006-01-02 15:04"))
}
