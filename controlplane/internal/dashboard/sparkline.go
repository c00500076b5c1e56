package dashboard

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// trafficView is what clients asked of an account in the last hour.
type trafficView struct {
	Lines   []sparkline
	Since   time.Time // from when on all was counted
	Whole   bool      // that is an hour ago
	Missing []missingFile
	// MissingSince is from when on missing files were counted.
	MissingSince time.Time
	Unreached    []string // control planes
}

// sparkline is a figure of the last hour with its minutes.
type sparkline struct {
	Name, Value string
	Class       string // good, bad or empty
	Line, Area  string // points of polylines in a field of sparkWide by sparkHigh
	Text        string // for who cannot see it
}

// missingFile is a file that nobody had.
type missingFile struct {
	*topologyv1.MissingFile
	URL string // empty where the endpoint is gone
}

const (
	sparkWide    = 240
	sparkHigh    = 44
	sparkMinutes = 60
)

// trafficOf lays out what is known of an account's traffic.
func trafficOf(t *topologyv1.Traffic, endpoints []*topologyv1.UrlEndpoint) trafficView {
	minutes := t.GetMinutes()
	v := trafficView{
		Since: t.GetStartTime().AsTime(), MissingSince: t.GetMissingStartTime().AsTime(), Unreached: t.GetUnreached(),
		Whole: len(minutes) > 0 && t.GetStartTime().AsTime().Equal(minutes[0].GetStartTime().AsTime()),
	}
	counts := make([]*topologyv1.TrafficCounts, len(minutes))
	var all topologyv1.TrafficCounts
	for i, m := range minutes {
		c := m.GetCounts()
		counts[i] = c
		all.Requests += c.GetRequests()
		all.Hits += c.GetHits()
		all.Misses += c.GetMisses()
		all.Errors += c.GetErrors()
		all.Bytes += c.GetBytes()
	}
	line := func(name, value, class string, of func(*topologyv1.TrafficCounts) float64, show func(float64) string) {
		s := sparkline{Name: name, Value: value, Class: class}
		s.draw(counts, of, show)
		v.Lines = append(v.Lines, s)
	}
	whole := func(n float64) string { return number(int64(n)) }
	line("Requests", number(all.Requests), "",
		func(c *topologyv1.TrafficCounts) float64 { return float64(c.GetRequests()) }, whole)
	line("Hit ratio", percent(ratio(&all)), "", ratio, percent)
	class := ""
	if all.Errors > 0 {
		class = "bad"
	}
	line("Errors", number(all.Errors), class,
		func(c *topologyv1.TrafficCounts) float64 { return float64(c.GetErrors()) }, whole)
	line("Bytes sent", byteSize(all.Bytes), "",
		func(c *topologyv1.TrafficCounts) float64 { return float64(c.GetBytes()) },
		func(n float64) string { return byteSize(int64(n)) })
	urls := make(map[string]string)
	for _, e := range endpoints {
		if len(e.GetUrls()) > 0 {
			urls[e.GetId()] = strings.TrimSuffix(e.GetUrls()[0], "/")
		}
	}
	for _, f := range t.GetMissingFiles() {
		m := missingFile{MissingFile: f}
		if base := urls[f.GetUrlEndpoint()]; base != "" {
			m.URL = base + f.GetPath()
		}
		v.Missing = append(v.Missing, m)
	}
	return v
}

// ratio is the share of hits, -1 where there was nothing to hit.
func ratio(c *topologyv1.TrafficCounts) float64 {
	if c.GetHits()+c.GetMisses() == 0 {
		return -1
	}
	return float64(c.GetHits()) / float64(c.GetHits()+c.GetMisses())
}

func percent(share float64) string {
	if share < 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", share*100)
}

// draw lays a figure of each minute out, from zero to the largest. Minutes without one, below zero,
// are left out.
func (s *sparkline) draw(
	counts []*topologyv1.TrafficCounts, of func(*topologyv1.TrafficCounts) float64, show func(float64) string,
) {
	most, last := 0.0, 0.0
	for _, c := range counts {
		most = max(most, of(c))
	}
	var line strings.Builder
	begin, end := -1.0, 0.0
	for i, c := range counts {
		value := of(c)
		if value < 0 {
			continue
		}
		last = value
		x := float64(i) * sparkWide / (sparkMinutes - 1)
		y := sparkHigh - 2 - (sparkHigh-4)*value/cmp.Or(most, 1)
		fmt.Fprintf(&line, "%.1f,%.1f ", x, y)
		if begin < 0 {
			begin = x
		}
		end = x
	}
	s.Line = strings.TrimSpace(line.String())
	if begin == end { // a single minute is a dash
		begin -= sparkWide / (sparkMinutes - 1)
		_, y, _ := strings.Cut(s.Line, ",")
		s.Line = fmt.Sprintf("%.1f,%s %s", begin, y, s.Line)
	}
	if s.Line != "" {
		s.Area = fmt.Sprintf("%.1f,%d %s %.1f,%d", begin, sparkHigh, s.Line, end, sparkHigh)
	}
	s.Text = fmt.Sprintf("%s by minute, at most %s, %s in the last one", s.Name, show(most), show(last))
}
