package origin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// maxGrantBytes bounds the answer of a token endpoint.
const maxGrantBytes = 64 << 10

// A tokenError says why there is no token.
type tokenError struct {
	fault  fault
	after  time.Duration // how long the issuer asks to be left alone
	denied bool          // the issuer refused what it was given
}

func (e *tokenError) Error() string { return e.fault.detail }

// askToken sends a request to a token endpoint and reads the grant. Of what the endpoint says only the error code of RFC 6749
// 5.2 is told: the rest may repeat what it was sent.
func (c *Client) askToken(ctx context.Context, o *topology.Origin, req *http.Request, advice string) (grant, error) {
	where := "token endpoint " + shown(req.URL, false)
	refuse := func(f fault, after time.Duration, denied bool) (grant, error) {
		f.detail = where + ": " + f.detail
		return grant{}, &tokenError{fault: f, after: after, denied: denied}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Connect+o.FirstByte, errFirstByteTimeout)
	defer cancel()
	req.Header.Set("User-Agent", c.userAgent)
	var notes []string
	traced := httptrace.WithClientTrace(context.WithValue(ctx, connectKey{}, o.Connect), &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { begin(got, &notes) },
	})
	resp, err := c.origins.RoundTrip(req.WithContext(traced))
	if err != nil {
		return refuse(faultOf(causeOf(ctx, err)), 0, false)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxGrantBytes))
	if err != nil {
		return refuse(faultOf(causeOf(ctx, err)), 0, false)
	}
	if resp.StatusCode != http.StatusOK {
		f := grantFault(resp.StatusCode, text, advice)
		return refuse(f, retryAfter(resp.Header.Get("Retry-After"), time.Now()), f.reason == Misconfigured)
	}
	got, ok := readGrant(text)
	if !ok {
		return refuse(fault{Failed, "http_protocol_error", "the answer holds no token", "check that this is a token endpoint"}, 0, false)
	}
	return got, nil
}

// grantFault reads the refusal of a token endpoint.
func grantFault(status int, text []byte, advice string) fault {
	detail := "HTTP " + strconv.Itoa(status)
	if code := grantCode(text); code != "" {
		detail += " " + code
	}
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return fault{Busy, "destination_unavailable", detail, adviceBusy}
	case status >= 300 && status <= 499:
		return fault{Misconfigured, "proxy_configuration_error", detail, advice}
	}
	return fault{Failed, "destination_unavailable", detail, adviceLog}
}

// grantCode is the error code of RFC 6749 5.2, such as "invalid_grant".
func grantCode(text []byte) string {
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &e) != nil || len(e.Error) > 64 || strings.Trim(e.Error, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return ""
	}
	return e.Error
}

func readGrant(text []byte) (grant, bool) {
	var g struct {
		AccessToken  string  `json:"access_token"`
		RefreshToken string  `json:"refresh_token"`
		ExpiresIn    float64 `json:"expires_in"`
	}
	if json.Unmarshal(text, &g) != nil || !tokenText(g.AccessToken) || g.AccessToken == "" || !tokenText(g.RefreshToken) {
		return grant{}, false
	}
	life := time.Duration(min(max(g.ExpiresIn, 0), maxTokenLife.Seconds())) * time.Second
	return grant{token: g.AccessToken, refresh: g.RefreshToken, life: life}, true
}

// tokenText reports whether a token can stand in a header field.
func tokenText(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// bearer lets a request in with the origin's token.
func (c *Client) bearer(ctx context.Context, h *hop, exchange exchanger) error {
	value, err := c.tokens.get(ctx, h.origin, h.ask.Deadline, exchange)
	if err != nil {
		return fmt.Errorf("get a token: %w", err)
	}
	h.token = value
	h.req.Header["Authorization"] = []string{"Bearer " + value}
	return nil
}
