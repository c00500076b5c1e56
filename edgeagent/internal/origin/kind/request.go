package kind

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/edgewalk/edgewalk/internal/topology"
	"golang.org/x/net/http/httpguts"
)

// NewRequest returns a GET of a copy of u. Unlike http.NewRequest it does not parse the URL again.
func NewRequest(u *url.URL) *http.Request {
	r := &struct {
		req http.Request
		url url.URL
	}{url: *u}
	r.req.Method, r.req.URL, r.req.Header = http.MethodGet, &r.url, make(http.Header, 8)
	r.req.Proto, r.req.ProtoMajor, r.req.ProtoMinor = "HTTP/1.1", 1, 1
	return &r.req
}

// SetRequestHeaders sets the origin's request_headers, and replaces fields of the same names. Where
// the URL is in the path, secret ones are sent over TLS only.
func SetRequestHeaders(req *http.Request, o *topology.Origin) {
	for _, field := range o.Spec.GetRequestHeaders() {
		value := field.GetValue()
		if secret := o.Secrets[topology.HeaderSecret(field.GetName())]; secret != "" {
			if req.URL.Scheme != "https" && o.Spec.GetWebProxy() != nil {
				continue
			}
			value = secret
		}
		if !Reserved(field.GetName()) && httpguts.ValidHeaderFieldName(field.GetName()) &&
			httpguts.ValidHeaderFieldValue(value) {
			req.Header.Set(field.GetName(), value)
		}
	}
}

// Reserved reports whether a field is about the connection, the framing or the conditions of the
// request, so that neither clients nor request_headers may set it.
func Reserved(name string) bool {
	switch strings.ToLower(name) {
	case "host", "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
		"content-length",
		"expect", "range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "via",
		"cdn-loop":
		return true
	}
	return false
}

// ObjectKey joins prefix and object with a "/". Its error says that no store can have the key, or
// that software on the way could take the key for another one. Clients cannot ask for the latter,
// but prefix and probe_key can hold one.
func ObjectKey(prefix, object string) (string, error) {
	key := prefix + object
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		key = prefix + "/" + object
	}
	if len(key) > topology.MaxKeyBytes {
		return "", &UnaskedError{Detail: fmt.Sprintf("the key would be longer than %d bytes", topology.MaxKeyBytes)}
	}
	for segment := range strings.SplitSeq(strings.ReplaceAll(key, `\`, "/"), "/") {
		if segment == "." || segment == ".." {
			return "",
				WrongConfig("the key would have a . or .. segment", "take . and .. segments out of prefix and probeKey")
		}
	}
	return key, nil
}

// XMLCode reads the code of an S3 error: <Error><Code>NoSuchKey</Code>...</Error>.
func XMLCode(_ http.Header, body []byte) string {
	var e struct {
		XMLName xml.Name `xml:"Error"`
		Code    string   `xml:"Code"`
	}
	if xml.Unmarshal(body, &e) != nil {
		return ""
	}
	return ErrorCode(strings.TrimSpace(e.Code))
}

// ErrorCode returns text if it can be the name of an error, which consists of letters, and ""
// otherwise: it may be what the edge has sent, and is not shown.
func ErrorCode(text string) string {
	for i := range len(text) {
		if c := text[i] | 0x20; c < 'a' || c > 'z' {
			return ""
		}
	}
	if len(text) > 64 {
		return ""
	}
	return text
}
