package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test's program the process of light streams too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == streamsCommand {
		if err := serveStreams(context.Background(), os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Every part of the measurement works from the start of its control plane to its figures, and
// leaves nothing behind.
func TestFleetFigures(t *testing.T) {
	if testing.Short() {
		t.Skip("builds edgewalk and starts it nine times")
	}
	b, err := newBench(t.Context(), options{scale: 0.0001, count: 3})
	if err != nil {
		t.Fatal(err)
	}
	table, err := b.measureFleet(t.Context())
	b.close()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, row := range table.rows {
		figure, measured := row[0], row[3]
		got[figure] = measured
		if measured == "" || measured == "fails" || measured == "-" {
			t.Errorf("%s: measured %q: %s", figure, measured, row[4])
		}
		if !strings.Contains(row[4], "load ") {
			t.Errorf("%s: the notes tell no load: %s", figure, row[4])
		}
	}
	for _, figure := range []string{
		"update of an endpoint, p50, account of 20 domains",
		"update of a domain, p50, account of 60 domains",
		"64 writers, 1 streams",
		"64 writers, 2 streams",
		"reply to the last of 2 real edges, p99",
		"reply to the last of 2 light streams, p99",
		"reply to the last of 4 light streams, p99",
		"an update, p50, at 4 streams",
		"a get, p50, at 4 streams",
		"CPU a change and stream, of 3",
		"encodings a change",
		"an idle stream in the clear",
		"an idle stream with TLS",
		"full state of 100 domains, bytes on the wire",
		"cold sync of 100 domains",
		"edge boot from disk of 100 domains",
		"edge memory of 100 domains",
		"control plane boot of 100 domains",
		"control plane memory of 100 domains",
	} {
		if got[figure] == "" {
			t.Errorf("no figure %q", figure)
		}
	}
	if got["encodings a change"] != "1.00" {
		t.Errorf("%s encodings a change, want 1.00", got["encodings a change"])
	}
	for _, p := range b.started {
		if !p.ended() {
			t.Errorf("%s still runs", p.name)
		}
	}
	if _, err := os.Stat(b.dir); !os.IsNotExist(err) {
		t.Errorf("the folder %s is left: %v", b.dir, err)
	}
}

// The least of many streams moves when the last of them does.
func TestLevel(t *testing.T) {
	var reported []int64
	l := newLevel(2, func(f floor) {
		reported = append(reported, f.revision)
		if time.Since(f.at) > time.Minute {
			t.Errorf("reached at %v", f.at)
		}
	})
	for _, move := range []struct {
		from, to int64
		reported string
	}{
		{0, 5, "[]"},
		{5, 7, "[]"},
		{0, 4, "[4]"},
		{4, 9, "[4 7]"},
		{7, 9, "[4 7 9]"},
	} {
		l.move(move.from, move.to)
		if got := fmt.Sprint(reported); got != move.reported {
			t.Errorf("after %d to %d: %s, want %s", move.from, move.to, got, move.reported)
		}
	}
}
