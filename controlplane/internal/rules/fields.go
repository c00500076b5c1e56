package rules

import "strings"

// hopByHop holds the fields that mean one connection (RFC 9110 7.6.1) and those that frame a
// message (RFC 9112 6).
func hopByHop(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
		"proxy-authentication-info", "te", "trailer", "transfer-encoding", "upgrade", "content-length",
		"http2-settings":
		return true
	}
	return false
}

// requestFieldRefused says why a field may not be sent to origins by configuration, or "".
func requestFieldRefused(name string) string {
	name = strings.ToLower(name)
	switch {
	case hopByHop(name):
		return name + " belongs to one connection or frames a message: drop it"
	case name == "host":
		return "host is that of the origin's URL: use web.forwardHostHeader for the client's"
	case name == "range" || strings.HasPrefix(name, "if-"):
		return name + " would make an origin answer with a part or with 304: drop it"
	case name == "via" || name == "cdn-loop":
		return name + " keeps requests from going in circles and is set by edgewalk: drop it"
	}
	return ""
}

// responseSetRefused says why a reply's field, in lower case, may not be set by configuration, or
// "".
func responseSetRefused(name string) string {
	switch name {
	case "content-encoding", "content-range", "accept-ranges", "date":
		return name + " describes the message as it is sent: drop it"
	case "cache-control", "cdn-cache-control", "surrogate-control", "expires", "pragma", "age", "etag", "last-modified",
		"vary",
		"warning", "cache-status":
		return name + " steers caches: use the endpoint's cache fields"
	}
	return framing(name)
}

// responseRemoveRefused says why a reply's field may not be removed by configuration, or "".
func responseRemoveRefused(name string) string {
	name = strings.ToLower(name)
	switch name {
	case "content-encoding", "content-range", "date":
		return name + " describes the message as it is sent: it must stay"
	case "vary":
		return "without vary, caches behind the edge would mix up variants: it must stay"
	}
	return framing(name)
}

func framing(name string) string {
	if hopByHop(name) {
		return name + " belongs to one connection or frames a message"
	}
	return ""
}
