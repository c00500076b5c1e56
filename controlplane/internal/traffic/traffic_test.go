package traffic

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const uid = "1-acme"

// clock is a time that a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newTable() (*Table, *clock) {
	c := &clock{time.Date(2030, 1, 2, 3, 4, 0, 0, time.UTC)}
	return New(c.now), c
}

func report(covers time.Duration, requests int64, missing ...string) *edgev1.AccountTraffic {
	r := &edgev1.AccountTraffic{
		Account: "acme", Uid: uid, Covers: durationpb.New(covers), Counts: &topologyv1.TrafficCounts{
			Requests: requests, Hits: requests / 2, Misses: requests / 4, Errors: requests / 10, Bytes: requests * 100,
		},
	}
	for _, path := range missing {
		r.MissingFiles = append(r.MissingFiles,
			&topologyv1.MissingFile{UrlEndpoint: "default", Path: path, Requests: 1})
	}
	return r
}

// requests are those of each minute.
func requests(t *topologyv1.Traffic) (all []int64) {
	for _, m := range t.GetMinutes() {
		all = append(all, m.GetCounts().GetRequests())
	}
	return all
}

func sum(list []int64) (n int64) {
	for _, one := range list {
		n += one
	}
	return n
}

// What a report says goes to the minutes that it covers, and none of it is lost.
func TestMinutes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		after  time.Duration // the beginning of a minute
		covers time.Duration
		want   []int64 // the last minutes, the one under way last
	}{
		{"within a minute", 30 * time.Second, 10 * time.Second, []int64{0, 1000}},
		{"over the end of a minute", 4 * time.Second, 10 * time.Second, []int64{0, 600, 400}},
		{"after minutes without a control plane", time.Minute, 5 * time.Minute, []int64{0, 200, 200, 200, 200, 200, 0}},
		{"no time at all", time.Second, 0, []int64{0, 1000}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, clock := newTable()
			clock.at = clock.at.Add(10*time.Minute + tt.after)
			table.Add(report(tt.covers, 1000))
			got := table.Of(uid)
			all := requests(got)
			if len(all) != Minutes || sum(all) != 1000 || !slices.Equal(all[Minutes-len(tt.want):], tt.want) {
				t.Errorf("the minutes have %v, want %v at their end", all, tt.want)
			}
			var whole topologyv1.TrafficCounts
			for _, m := range got.GetMinutes() {
				c := m.GetCounts()
				whole.Hits, whole.Misses = whole.Hits+c.GetHits(), whole.Misses+c.GetMisses()
				whole.Errors, whole.Bytes = whole.Errors+c.GetErrors(), whole.Bytes+c.GetBytes()
			}
			if whole.Hits != 500 || whole.Misses != 250 || whole.Errors != 100 || whole.Bytes != 100_000 {
				t.Errorf("together they have %v", &whole)
			}
		})
	}
}

// What is older than an hour is not told, and a table says from when on it counts.
func TestHour(t *testing.T) {
	table, clock := newTable()
	began := clock.at
	table.Add(report(time.Second, 10))
	clock.at = clock.at.Add(30 * time.Minute)
	table.Add(report(time.Second, 20))
	if got := table.Of(uid); sum(requests(got)) != 30 || !got.GetStartTime().AsTime().Equal(began) {
		t.Errorf("after half an hour there are %v since %v", requests(got), got.GetStartTime().AsTime())
	}
	clock.at = clock.at.Add(40 * time.Minute)
	got := table.Of(uid)
	if sum(requests(got)) != 20 || !got.GetStartTime().AsTime().Equal(got.GetMinutes()[0].GetStartTime().AsTime()) {
		t.Errorf("after 70 minutes there are %v since %v", requests(got), got.GetStartTime().AsTime())
	}
	clock.at = clock.at.Add(240 * time.Minute)
	if got := table.Of(uid); sum(requests(got)) != 0 || len(got.GetMissingFiles()) != 0 {
		t.Errorf("after hours there are %v", got)
	}
	if got := table.Of("1-other"); len(got.GetMinutes()) != Minutes || sum(requests(got)) != 0 {
		t.Errorf("of an account without requests there is %v", got)
	}
}

// Missing files are those of this half hour and the one before.
func TestMissing(t *testing.T) {
	table, clock := newTable()
	table.Add(report(time.Second, 10, "/a", "/b"))
	clock.at = clock.at.Add(sketchFor)
	table.Add(report(time.Second, 10, "/b"))
	said := func() string {
		text := ""
		for _, f := range table.Of(uid).GetMissingFiles() {
			text += fmt.Sprint(f.GetUrlEndpoint(), f.GetPath(), f.GetRequests(), " ")
		}
		return text
	}
	if got := said(); got != "default/b2 default/a1 " {
		t.Errorf("missing are %q", got)
	}
	clock.at = clock.at.Add(sketchFor)
	if got := said(); got != "default/b1 " {
		t.Errorf("half an hour later missing are %q", got)
	}
	clock.at = clock.at.Add(sketchFor)
	if got := said(); got != "" {
		t.Errorf("an hour later missing are %q", got)
	}
}

func TestMerge(t *testing.T) {
	a, clock := newTable()
	a.Add(report(time.Second, 10, "/a", "/b"))
	clock.at = clock.at.Add(5 * time.Minute)
	b := New(clock.now)
	b.Add(report(time.Second, 5, "/b"))
	all := a.Of(uid)
	Merge(all, b.Of(uid))
	if sum(requests(all)) != 15 || !all.GetStartTime().AsTime().Equal(clock.at) {
		t.Errorf("together: %v since %v", requests(all), all.GetStartTime().AsTime())
	}
	if files := all.GetMissingFiles(); len(files) != 2 || files[0].GetPath() != "/b" || files[0].GetRequests() != 2 {
		t.Errorf("missing together: %v", files)
	}
}

// Memory is bounded: the accounts that were reported last are kept.
func TestAccountsAreBounded(t *testing.T) {
	table, _ := newTable()
	for i := range MaxAccounts + 1 {
		r := report(time.Second, 10)
		r.Uid = fmt.Sprint(i, "-acme")
		table.Add(r)
	}
	if n := table.accounts.Len(); n != MaxAccounts {
		t.Errorf("%d accounts are kept", n)
	}
	if sum(requests(table.Of("0-acme"))) != 0 || sum(requests(table.Of(fmt.Sprint(MaxAccounts, "-acme")))) != 10 {
		t.Error("another one than the oldest went")
	}
}
