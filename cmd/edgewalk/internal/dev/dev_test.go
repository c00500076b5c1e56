package dev

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Only a folder that a demonstration has made is ever emptied or written to.
func TestPrepare(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		files      []string
		reset      bool
		err        string
		wantedLeft []string
	}{
		{name: "a new folder", wantedLeft: []string{marker}},
		{name: "a new folder, reset", reset: true, wantedLeft: []string{marker}},
		{name: "one of ours", files: []string{marker, "edge"}, wantedLeft: []string{"edge", marker}},
		{name: "one of ours, reset", files: []string{marker, "edge"}, reset: true, wantedLeft: []string{marker}},
		{name: "somebody's", files: []string{"thesis.txt"}, err: "holds something else", wantedLeft: []string{"thesis.txt"}},
		{name: "somebody's, reset", files: []string{"thesis.txt"}, reset: true, err: "holds something else", wantedLeft: []string{"thesis.txt"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			for _, name := range test.files {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			mark, err := prepare(dir, test.reset)
			if err == nil {
				mark.Close()
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, e := range entries {
				left = append(left, e.Name())
			}
			if strings.Join(left, " ") != strings.Join(test.wantedLeft, " ") {
				t.Errorf("left are %v, want %v", left, test.wantedLeft)
			}
		})
	}
}

// The state of a running demonstration is nobody else's, least of all to delete.
func TestStateOfARunningDev(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mark, err := prepare(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "edge"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, reset := range []bool{false, true} {
		if _, err := prepare(dir, reset); err == nil || !strings.Contains(err.Error(), "another edgewalk dev runs on "+dir) {
			t.Errorf("reset %t: %v", reset, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "edge")); err != nil {
			t.Errorf("reset %t: the state is gone: %v", reset, err)
		}
	}
	mark.Close()
	if mark, err = prepare(dir, true); err != nil {
		t.Fatalf("once it has ended: %v", err)
	}
	mark.Close()
}
