package origin

import (
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Advice names what would help, and nothing that would not.
func TestAdvice(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		answer faultorigin.Answer
		change func(*topologyv1.WebOrigin)
		detail string
		advice string
	}{
		{name: "metadata by redirect", answer: faultorigin.Redirect(302, "http://169.254.169.254/latest/"),
			detail: `host "169.254.169.254": its address is never allowed, after a redirect to http://169.254.169.254/latest/`, advice: adviceNever},
		{name: "metadata", change: func(w *topologyv1.WebOrigin) { w.BaseUrl = "http://[fd00:ec2::254]" },
			detail: `host "fd00:ec2::254": its address is never allowed`, advice: adviceNever},
		{name: "private", change: func(w *topologyv1.WebOrigin) { w.BaseUrl = "http://10.1.2.3" },
			detail: `host "10.1.2.3": its address is not public`, advice: adviceAddress},
		{name: "redirects in a circle", answer: faultorigin.Redirect(302, "/a.jpg"), detail: "HTTP 302 to /a.jpg, after 3 redirects, after a redirect to {}/a.jpg",
			advice: "see where the redirects lead: they may go in a circle"},
		{name: "redirects that are not followed", answer: faultorigin.Redirect(302, "/b.jpg?key=1"),
			change: func(w *topologyv1.WebOrigin) { w.FollowRedirects = new(bool) },
			detail: "HTTP 302 to /b.jpg?...", advice: "set web.followRedirects, or point web.baseUrl at where the files are"},
		{name: "redirect to nowhere", answer: faultorigin.Reply(302, ""), detail: "HTTP 302 without a Location",
			advice: "point web.baseUrl at where the files are"},
		{name: "redirect to a stray percent that is not followed", answer: faultorigin.Redirect(302, "/%zz.jpg"),
			change: func(w *topologyv1.WebOrigin) { w.FollowRedirects = new(bool) },
			detail: "HTTP 302 to /%25zz.jpg", advice: "set web.followRedirects, or point web.baseUrl at where the files are"},
		{name: "in the clear to TLS",
			answer: faultorigin.Reply(400, "Client sent an HTTP request to an HTTPS server.\n"),
			detail: "HTTP 400 in the clear to a port for TLS", advice: "use https://"},
		{name: "in the clear to TLS, told by an alert", answer: faultorigin.Raw("\x15\x03\x01\x00\x02\x02\x16"),
			detail: "the server speaks TLS, and was asked without", advice: "use https://"},
		{name: "a name that is not served", answer: faultorigin.Reply(421, ""),
			change: func(w *topologyv1.WebOrigin) { w.HostHeader = "a.test" },
			detail: "HTTP 421 for Host a.test", advice: "the server does not serve the Host, or the TLS name, that it was sent: " +
				"set web.hostHeader to a name that it serves, and web.tlsServerName if its certificate is for another"},
		{name: "in a circle through edgewalk", answer: faultorigin.Reply(508, "508 the request has been here before; an origin leads back to the edge\n"),
			detail: "HTTP 508", advice: "ask the server that has the files: the request went in a circle, as it does if this URL leads back to edgewalk"},
		{name: "stranger's scheme", answer: faultorigin.Redirect(302, "ftp://x/"), detail: "HTTP 302 to ftp://x/, which is not a plain http or https URL",
			advice: "point web.baseUrl at where the files are"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			if test.answer != nil {
				fault.On(faultorigin.Any, test.answer)
			}
			a := localClient(t).Get(t.Context(), webOrigin(t, fault.URL(), func(o *topologyv1.Origin) {
				if test.change != nil {
					test.change(o.GetWeb())
				}
			}), get("/a.jpg"))
			discard(t, a)
			if detail := strings.ReplaceAll(a.Detail, fault.URL(), "{}"); detail != test.detail ||
				a.Advice != test.advice || a.Outcome != Inconclusive {
				t.Errorf("told %q, %q", detail, a.Advice)
			}
		})
	}
}
