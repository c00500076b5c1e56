package main

import (
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

var flagRow = regexp.MustCompile("(?m)^\\| (`--.*?) \\| ?(.*?) ?\\|")

// The README lists each flag of the daemons with its default, and none that there is not.
func TestReadmeListsFlags(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, daemon := range []string{"controlplane", "edgeagent"} {
		_, section, found := strings.Cut(string(text), "\n`edgewalk "+daemon+"`:\n")
		if !found {
			t.Errorf("the README has no flags of %s", daemon)
			continue
		}
		section, _, _ = strings.Cut(section, "\n`edgewalk ")
		listed := map[string]string{}
		for _, row := range flagRow.FindAllStringSubmatch(section, -1) {
			for name := range strings.SplitSeq(row[1], ", ") {
				listed[strings.Trim(name, "`-")] = row[2]
			}
		}
		cmd, _, err := newRoot(io.Discard).Find([]string{daemon})
		if err != nil {
			t.Fatal(err)
		}
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" {
				return
			}
			want := strings.Trim(f.DefValue, "[]")
			if got, ok := listed[f.Name]; !ok || got != want {
				t.Errorf("%s --%s: the README says default %q (listed: %v), it is %q", daemon, f.Name, got, ok, want)
			}
			delete(listed, f.Name)
		})
		for name := range listed {
			t.Errorf("%s has no flag --%s", daemon, name)
		}
	}
}
