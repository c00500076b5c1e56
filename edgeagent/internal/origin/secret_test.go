package origin

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/akeneo"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
	"github.com/prometheus/client_golang/prometheus"
)

// Whatever an origin answers, even what it was sent, no secret is in what anybody reads: answers,
// errors of bodies, states, metrics, and the log.
func TestNoSecretIsTold(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	key := pkcs8(t, serviceKey())
	middle := strings.Split(key, "\n")[5]
	secrets := []string{theSecret, middle, "c2VjcmV0LWtleQ", "sig="}
	echo := func(status int, code string) faultorigin.Answer {
		return func(x *faultorigin.Exchange) {
			sent := fmt.Sprintf("%s %v", x.Request.Target, x.Request.Header)
			body := "<Error><Code>" + code + "</Code><Message>" + sent + "</Message></Error>"
			faultorigin.Reply(status, body, "Location: /?"+strings.ReplaceAll(sent, " ", ""), "x-ms-error-code: "+code,
				"Reason: "+sent)(
				x,
			)
		}
	}
	for name, answer := range map[string]faultorigin.Answer{
		"refused": echo(403, "AccessDenied"), "unknown": echo(401, "InvalidAccessKeyId"), "asked": echo(400, theSecret),
		"broken": echo(500, "InternalError"), "moved": echo(302, "PermanentRedirect"),
		"missing": echo(404, "NoSuchKey"), "busy": echo(503, "SlowDown"),
		"garbage": faultorigin.Raw("HTTP/1.1 " + theSecret + "\r\n\r\n"), "cut": faultorigin.Cut(theSecret, 4),
		"gone": faultorigin.Reset(), "odd field": faultorigin.Raw("HTTP/1.1 200 OK\r\n" + theSecret + "\r\n\r\n"),
	} {
		fault := faultorigin.New(t)
		fault.On(faultorigin.Any, answer)
		withTokens := faultorigin.New(t)
		withTokens.On(faultorigin.Any, answer)
		withTokens.On("/token", faultorigin.Reply(200, `{"access_token":"`+theSecret+`"}`))
		withTokens.On(akeneo.Tokens, faultorigin.Reply(200, `{"access_token":"`+theSecret+`"}`))
		signature := azureOrigin(t, fault.URL())
		signature.Secrets = map[string]string{"azure_blob.sas_token": sas}
		keyed := azureOrigin(t, fault.URL())
		keyed.Secrets = map[string]string{"azure_blob.account_key": "c2VjcmV0LWtleQ=="}
		withHeader := gcsOrigin(t, fault.URL(),
			func(o *topologyv1.Origin) { o.RequestHeaders = []*topologyv1.RequestHeader{{Name: "X-Key"}} })
		withHeader.Secrets = map[string]string{"request_headers[x-key].secret_value": theSecret}
		registry := prometheus.NewRegistry()
		c := newTestClient(t, Config{AllowCIDRs: loopback, Registerer: registry})
		for _, o := range []*topology.Origin{
			webOrigin(t, fault.URL()), s3Origin(t, fault.URL()), withHeader, account(t, fault.URL(), key),
			account(t, withTokens.URL(), key), signature, keyed, akeneoOrigin(t, fault.URL()),
			akeneoOrigin(t, withTokens.URL()), proxyOrigin(t, fault.URL()),
		} {
			ask := get(pathAt(o, fault, "/a.jpg"))
			a := c.Get(t.Context(), o, ask)
			reported := fmt.Sprintf("%s %s %s %s", a.Request, a.Detail, a.Advice, a.ProxyError)
			if a.Response != nil {
				_, err := read(t, a)
				reported += fmt.Sprint(err)
			}
			reported += fmt.Sprint(c.States(func(string, string) *topology.Origin { return o }))
			for _, secret := range secrets {
				if strings.Contains(reported, secret) {
					t.Errorf("%s at %s tells a secret: %s", name, a.Kind, reported)
				}
			}
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets {
			if strings.Contains(fmt.Sprint(families), secret) {
				t.Errorf("%s: the metrics tell a secret", name)
			}
		}
		c.Close()
	}
	for _, secret := range secrets {
		if strings.Contains(logged.String(), secret) {
			t.Errorf("the log tells a secret: %s", &logged)
		}
	}
}
