package dev

import (
	"fmt"
	"io"
	"strings"
)

// tourStep is something to type and what it shows.
type tourStep struct{ shows, command string }

// places are the addresses that a tour's commands need.
type places struct {
	port                   string // of the edge's HTTP listener
	admin, metrics, status string
	binary                 string
	server                 string // ` --server ADDR` where the admin API is not at its default address
	dashboard              string // a link that signs in once
	secure, trust          string // the port of HTTPS and the file to trust; empty without --acme
}

func (p places) tour() []tourStep {
	head := "curl -sS -o /dev/null -D - "
	base := "http://localhost:" + p.port + "/" + account
	steps := []tourStep{
		{"the first origin, studio, has it; again, and Cache-Status says hit", head + base + "/shoes.png"},
		{"studio says no, the second origin, legacy, has it", head + base + "/bag.png"},
		{"studio has it too, but the Media Library comes first", head + base + "/hat.png"},
		{"nobody has it: the default image", head + base + "/no-such.png"},
		{"another endpoint, archive, asks legacy only: other shoes", head + base + "/archive/shoes.png"},
		{"no default image there: 404", head + base + "/archive/no-such.png"},
		{"a domain for the whole account", head + "http://images.localhost:" + p.port + "/shoes.png"},
		{"... with an identifier", head + "http://images.localhost:" + p.port + "/archive/2019/boots.png"},
		{"a domain for one endpoint", head + "http://archive.localhost:" + p.port + "/2019/boots.png"},
		{"a part of a file", head + "-r 0-99 " + base + "/shoes.png"},
		{"what an edge does with a URL, and why", p.binary + " explain" + p.server + " " + base + "/bag.png"},
		{"forget what was stored, at every edge", p.binary + " purge" + p.server + " -A " + account + " --all --wait"},
		{"the edge's figures", "curl -sS " + p.metrics + "/metrics | grep ^edgewalk_"},
	}
	if p.secure != "" {
		steps = append(steps, tourStep{"the domain over HTTPS, with a certificate that came by itself",
			head + "--cacert " + p.trust + " https://images.localhost:" + p.secure + "/shoes.png"})
	}
	return steps
}

// write prints the tour.
func (p places) write(w io.Writer) {
	var b strings.Builder
	fmt.Fprintf(&b, "\nedgewalk is up. Pictures are served at http://localhost:%s/%s/ ; the admin API is at %s.\nTry, in another terminal:\n", p.port, account, p.admin)
	for _, step := range p.tour() {
		fmt.Fprintf(&b, "\n  # %s\n  %s\n", step.shows, step.command)
	}
	fmt.Fprintf(&b, "\nHealth: %s/readyz (control plane), %s/readyz (edge). Ctrl-C stops everything; what was stored stays.\n\n", p.status, p.metrics)
	if p.secure != "" {
		fmt.Fprintf(&b, "HTTPS: https://images.localhost:%s/shoes.png , once the browser trusts %s (for names below .localhost alone).\n\n",
			p.secure, p.trust)
	}
	fmt.Fprintf(&b, "Dashboard: %s\nThe link signs one browser in, once; afterwards it is at %s/ui/\n\n", p.dashboard, p.status)
	io.WriteString(w, b.String())
}
