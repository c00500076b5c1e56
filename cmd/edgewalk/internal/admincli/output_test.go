package admincli

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A table fits a screen: soft columns are cut first, the first column never, and wide and single
// ones not at all.
func TestTablesFit(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 60)
	rows := [][]string{
		{"an-id-of-some-length", long, "2 done, 0 pending", "more", "x"}, {"b", "short", "", "more", "y"},
	}
	head := []string{"ID", "~SCOPE", "EDGES", "+MORE", "AGE"}
	for _, tt := range []struct {
		name string
		t    table
		wide bool
		fits bool
		says []string
	}{
		{"a list", table{head: head, rows: rows}, false, true,
			[]string{"an-id-of-some-length", "2 done, 0 pending", "ä…"}},
		{"wide", table{head: head, rows: rows}, true, false, []string{long, "MORE", "more"}},
		{"a single resource", table{head: head, rows: rows[:1], whole: true}, false, false, []string{long}},
		{"all long", table{head: []string{"ID", "A", "~B"}, rows: [][]string{{"id", long, long}}}, false, true,
			[]string{"id"}},
		{"lines below", table{head: head, rows: rows, below: []string{"https://example.com/" + long}}, false, false,
			[]string{long}},
		{"a line of its own", table{rows: [][]string{{long + long}}}, false, false, []string{long + long}},
	} {
		var out strings.Builder
		if err := tt.t.write(&out, tt.wide); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); tt.fits && n > screen {
				t.Errorf("%s: %d columns: %s", tt.name, n, line)
			}
		}
		for _, text := range tt.says {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%s does not say %q:\n%s", tt.name, text, out.String())
			}
		}
		if strings.Contains(out.String(), "MORE") != tt.wide {
			t.Errorf("%s: wide columns are for -o wide:\n%s", tt.name, out.String())
		}
	}
}

// Columns stand where a terminal has them: some characters take two cells, and some none.
func TestColumnsLineUp(t *testing.T) {
	t.Parallel()
	rows := [][]string{{"商品图片", "1"}, {"e\u0301t\u0301", "2"}, {"\U0001f469\u200d\U0001f467", "3"}}
	var out strings.Builder
	if err := (&table{head: []string{"PATH", "N"}, rows: rows}).write(&out, false); err != nil {
		t.Fatal(err)
	}
	want := "PATH      N\n" + "商品图片  1\n" + "e\u0301t\u0301        2\n" + "\U0001f469\u200d\U0001f467        3\n"
	if out.String() != want {
		t.Errorf("got\n%s, want\n%s", out.String(), want)
	}
	if got := cut("商品图片", 6); got != "商品…" {
		t.Errorf("cut to six cells is %q", got)
	}
}

func TestJSONPath(t *testing.T) {
	t.Parallel()
	one := &adminv1.GetOriginResponse{Origin: &topologyv1.Origin{
		Name: "accounts/a/origins/o", Id: "o",
		Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: "http://h"}},
	}, Revision: 7}
	many := &adminv1.ListOriginsResponse{Origins: []*topologyv1.Origin{one.Origin, {Id: "p"}}}
	for _, tt := range []struct {
		output, want string
		list         bool
	}{
		{"jsonpath={.web.baseUrl}", "http://h\n", false}, {"jsonpath=.web.baseUrl", "http://h\n", false},
		{"jsonpath={.origin.web.baseUrl}", "http://h\n", false}, {"jsonpath={.revision}", "7\n", false},
		{"jsonpath={.nothing}", "\n", false}, {"jsonpath={.origins[*].id}", "o p\n", true},
		{`jsonpath={range .origins[*]}{.id}{"\n"}{end}`, "o\np\n\n", true}, {"name", "accounts/a/origins/o\n", false},
	} {
		c := &cli{output: tt.output}
		var out strings.Builder
		var err error
		if tt.list {
			err = c.print(&out, many, nil)
		} else {
			err = c.print(&out, one, nil)
		}
		if err != nil || out.String() != tt.want {
			t.Errorf("-o %s: %q, %v; want %q", tt.output, out.String(), err, tt.want)
		}
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 1500 * time.Microsecond: "2ms", 90 * time.Second: "90s", 5 * time.Minute: "5m",
		47 * time.Hour: "47h", 30 * day: "30d", 1000 * day: "2y", 24855 * day: "forever",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// A line of the history, and of the audit log, says in whole what changed: the rest is short.
func TestHistoryFits(t *testing.T) {
	t.Parallel()
	const who, method = "tokens/h4bz5no6pcvxq", "CreateCustomDomain"
	at := timestamppb.New(time.Now().Add(-3 * time.Hour))
	changes := []*adminv1.ResourceChange{{
		Name: "accounts/acme/customDomains/_wildcard.shop.example.org", Action: adminv1.ResourceChange_CREATED,
	}}
	for _, tab := range []table{
		historyTable([]*adminv1.Step{{Revision: 123456, Time: at, Who: who, Method: method, Changes: changes}}),
		eventsTable([]*adminv1.AuditEvent{{
			Revision: 123456, Time: at, Who: who, Method: method, Peer: "192.0.2.1", Changes: changes,
		}}),
	} {
		var out, wide strings.Builder
		if err := errors.Join(tab.write(&out, false), tab.write(&wide, true)); err != nil {
			t.Fatal(err)
		}
		const want = "REVISION  AGE  WHO            CHANGES\n" +
			"123456    3h   h4bz5no6pcvxq  customDomains/_wildcard.shop.example.org created\n"
		if out.String() != want {
			t.Errorf("it shows\n%s, want\n%s", out.String(), want)
		}
		for _, more := range []string{"METHOD", method, "TIME", at.AsTime().Format(time.RFC3339)} {
			if !strings.Contains(wide.String(), more) {
				t.Errorf("-o wide does not show %s:\n%s", more, wide.String())
			}
		}
	}
}
