package house

import (
	"fmt"
	"go/ast"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/edgewalk/edgewalk"

// hitPath is what answers a hit, behind the front that read it.
var hitPath = []string{
	"edgeagent/internal/edgehttp", "edgeagent/internal/field", "edgeagent/internal/front",
	"edgeagent/internal/httpcache", "edgeagent/internal/objects", "edgeagent/internal/purges",
	"edgeagent/internal/rfc9111", "edgeagent/internal/route",
}

// A rule looks at one file at a time and says what breaks it.
type rule struct {
	name   string
	reason string
	check  func(f *file) []finding
}

var rules = []rule{
	{
		name:   "no real sleep in tests",
		reason: "a sleep is too short on a busy machine and too long on an idle one: wait for the condition, or sleep inside synctest.Test where time is not real",
		check: func(f *file) []finding {
			if !f.isTest() {
				return nil
			}
			return f.uses("time", outsideSynctest, func(symbol string) bool { return symbol == "Sleep" })
		},
	},
	{
		name:   "pure packages never ask the time",
		reason: "topology, rules and rfc9111 give the same answer to the same arguments; now is one of them",
		check: func(f *file) []finding {
			if f.isTest() ||
				!f.under("internal/topology", "controlplane/internal/rules", "edgeagent/internal/rfc9111") {
				return nil
			}
			asks := []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Sleep", "Tick"}
			return f.uses("time", everywhere, func(symbol string) bool { return slices.Contains(asks, symbol) })
		},
	},
	{
		name:   "a hit needs no net/http",
		reason: "what a hit goes through has types of its own, and of net/http no more than the names of methods and statuses",
		check: func(f *file) []finding {
			if f.isTest() || !f.under(hitPath...) {
				return nil
			}
			return f.uses("net/http", everywhere, func(symbol string) bool {
				return symbol != "TimeFormat" && !strings.HasPrefix(symbol, "Status") &&
					!strings.HasPrefix(symbol, "Method")
			})
		},
	},
	{
		name:   "imports follow the layout",
		reason: "config flows from left to right and the two programs meet only in the protos and in internal",
		check:  checkImports,
	},
	{
		name:   "small files",
		reason: "a file holds one idea; over 700 lines it holds more",
		check: func(f *file) []finding {
			if n := f.lines(); n > 700 {
				return []finding{{line: n, what: fmt.Sprintf("%d lines", n)}}
			}
			return nil
		},
	},
	{
		name: "lines fit",
		reason: "two files side by side fit on a screen: comments take 100 columns at most, code 120, a tab being 4; " +
			"a line may be longer by one literal of more than 60 columns, or by one word of a comment",
		check: checkWidths,
	},
	{
		name:   "nothing left for later",
		reason: "what is committed is whole: unfinished work is not, and what nobody does is not promised",
		check: func(f *file) []finding {
			var found []finding
			for _, group := range f.ast.Comments {
				for _, comment := range group.List {
					for _, marker := range []string{"TODO", "FIXME"} {
						if strings.Contains(comment.Text, marker) {
							found = append(found, f.at(comment, marker))
						}
					}
				}
			}
			return found
		},
	},
	{
		name:   "errors say what was done",
		reason: `"read origin: timeout" reads well however often it is wrapped; "failed to" says nothing an error does not`,
		check: func(f *file) []finding {
			var found []finding
			for n := range ast.Preorder(f.ast) {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) == 0 ||
					!(f.selects(call.Fun, "fmt", "Errorf") || f.selects(call.Fun, "errors", "New")) {
					continue
				}
				if text, ok := call.Args[0].(*ast.BasicLit); ok &&
					strings.HasPrefix(strings.ToLower(text.Value[1:]), "failed to") {
					found = append(found, f.at(text, text.Value))
				}
			}
			return found
		},
	},
}

// A boundary keeps every file under the folders in from importing what starts with one of to.
type boundary struct {
	from   []string // "" is the whole repository
	except []string
	to     []string
	tests  bool // binds tests too
	reason string
}

var boundaries = []boundary{
	{
		from:   []string{"edgeagent"},
		to:     []string{module + "/controlplane"},
		reason: "an edge knows the control plane by its protos; only a test may start a real one",
	},
	{
		from:   []string{"controlplane"},
		to:     []string{module + "/edgeagent"},
		reason: "the control plane knows an edge by its protos; only a test may start a real one",
	},
	{
		from:   []string{"internal"},
		to:     []string{module + "/controlplane", module + "/edgeagent"},
		reason: "what both programs use belongs to neither",
	},
	{
		from:   []string{""},
		except: []string{"controlplane/internal/store", "controlplane/internal/etcdnode"},
		to:     []string{"go.etcd.io/etcd"},
		tests:  true,
		reason: "only store and etcdnode know etcd",
	},
	{
		from:   []string{"internal/topology", "controlplane/internal/rules", "edgeagent/internal/rfc9111"},
		to:     []string{"os", "google.golang.org/grpc"},
		reason: "topology, rules and rfc9111 do no I/O",
	},
	{
		from:   []string{"internal/topology", "controlplane/internal/rules"},
		to:     []string{"net/http"},
		reason: "topology and rules know names, not requests",
	},
	{
		from:   hitPath,
		to:     []string{"net/http/httptrace", "net/http/httputil", "net/http/httptest"},
		reason: "a hit needs no net/http",
	},
}

func checkImports(f *file) []finding {
	var found []finding
	for _, b := range boundaries {
		if !f.under(b.from...) || f.under(b.except...) || f.isTest() && !b.tests {
			continue
		}
		for _, spec := range f.ast.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue
			}
			if slices.ContainsFunc(b.to, func(to string) bool { return within(path, to) }) {
				found = append(found, f.at(spec, fmt.Sprintf("imports %s: %s", path, b.reason)))
			}
		}
	}
	return found
}
