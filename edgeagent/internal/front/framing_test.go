package front

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// behind is sent after each case: where the case ends decides whether it is a request.
const behind = "GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

// ok is what comes of a case that is a request for /a, and the one behind it.
const ok = "GET /a h | GET /b h"

// framingCases has bytes that parties have read in different ways, and what we make of them:
// requests, or the status of a refusal, after which nothing is read.
var framingCases = []struct{ name, sent, want string }{
	// Request lines (RFC 9112 3).
	{"plain", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", ok},
	{"an unknown method", "BREW /a HTTP/1.1\r\nHost: h\r\n\r\n", "BREW /a h | GET /b h"},
	{"a method in lower case", "get /a HTTP/1.1\r\nHost: h\r\n\r\n", "get /a h | GET /b h"},
	{"a method with a sign", "G-T /a HTTP/1.1\r\nHost: h\r\n\r\n", "G-T /a h | GET /b h"},
	{"a method that is no token", "G(T /a HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"no method", " /a HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"two spaces before the target", "GET  /a HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"two spaces behind the target", "GET /a  HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"a space in the target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"a space at the end", "GET /a HTTP/1.1 \r\nHost: h\r\n\r\n", "400"},
	{"a tab for a space", "GET\t/a HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"a tab in the target", "GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"a vertical tab for a space", "GET\v/a HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"a carriage return in the target", "GET /a\rb HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"a carriage return before the version", "GET /a\r HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"NUL in the target", "GET /a\x00b HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"DEL in the target", "GET /a\x7fb HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"a fragment", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"no target", "GET HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"an empty target", "GET  HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"no version (HTTP/0.9)", "GET /a\r\nHost: h\r\n\r\n", "400"},
	{"a version in lower case", "GET /a http/1.1\r\nHost: h\r\n\r\n", "400"},
	{"another protocol", "GET /a ICAP/1.0\r\nHost: h\r\n\r\n", "400"},
	{"version 1", "GET /a HTTP/1\r\nHost: h\r\n\r\n", "400"},
	{"version 1.10", "GET /a HTTP/1.10\r\nHost: h\r\n\r\n", "400"},
	{"version 01.1", "GET /a HTTP/01.1\r\nHost: h\r\n\r\n", "400"},
	{"version 1.2", "GET /a HTTP/1.2\r\nHost: h\r\n\r\n", ok},
	{"version 2.0", "GET /a HTTP/2.0\r\nHost: h\r\n\r\n", "505"},
	{"version 0.9", "GET /a HTTP/0.9\r\nHost: h\r\n\r\n", "505"},
	{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"},
	{"version -1.1", "GET /a HTTP/-1.1\r\nHost: h\r\n\r\n", "400"},
	{"HTTP/1.0", "GET /a HTTP/1.0\r\nHost: h\r\n\r\n", "GET /a h"},
	{"HTTP/1.0 that goes on", "GET /a HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", ok},
	{"HTTP/1.0 without Host", "GET /a HTTP/1.0\r\n\r\n", "GET /a "},
	// Targets (RFC 9112 3.2).
	{"a query", "GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a?b=c h | GET /b h"},
	{"absolute form", "GET http://h/a HTTP/1.1\r\nHost: h\r\n\r\n", ok},
	{"absolute form against Host", "GET http://h/a HTTP/1.1\r\nHost: other\r\n\r\n", ok},
	{"absolute form without Host", "GET http://h/a HTTP/1.1\r\n\r\n", "400"},
	{"absolute form of an empty host", "GET http:///a HTTP/1.1\r\nHost: h\r\n\r\n", "refused | GET /b h"},
	{"asterisk form", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS * h | GET /b h"},
	{"authority form", "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", "refused | GET /b h"},
	{"no slash", "GET a HTTP/1.1\r\nHost: h\r\n\r\n", "refused | GET /b h"},
	{"bytes beyond ASCII", "GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n", "GET /\xc3\xa4 h | GET /b h"},
	// Ends of lines (RFC 9112 2.2).
	{"bare line feeds", "GET /a HTTP/1.1\nHost: h\n\n", "400"},
	{"a bare line feed behind the request line", "GET /a HTTP/1.1\nHost: h\r\n\r\n", "400"},
	{"a bare line feed behind a field", "GET /a HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", "400"},
	{"a bare line feed at the end", "GET /a HTTP/1.1\r\nHost: h\r\n\n", "400"},
	{"a field behind a bare line feed", "GET /a HTTP/1.1\r\nHost: h\r\nX: y\nContent-Length: 5\r\n\r\nhello", "400"},
	{"a bare carriage return behind a field", "GET /a HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", "400"},
	{"carriage returns alone", "GET /a HTTP/1.1\rHost: h\r\r", "400"},
	{"two carriage returns", "GET /a HTTP/1.1\r\nHost: h\r\r\n\r\n", "400"},
	{"a line of a carriage return", "GET /a HTTP/1.1\r\nHost: h\r\n\r\r\n\r\n", "400"},
	{"one empty line before", "\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", ok},
	{"two empty lines before", "\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", ok},
	{"three empty lines before", "\r\n\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"an empty line of a line feed before", "\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"a space on a line before", " \r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
	{"an empty line between", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n\r\n", ok},
	// Field lines (RFC 9112 5).
	{"a space before the colon", "GET /a HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n", "400"},
	{"a tab before the colon", "GET /a HTTP/1.1\r\nHost: h\r\nX\t: y\r\n\r\n", "400"},
	{"a space before a framing field's colon", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\nhello", "400"},
	{"a space before the coding's colon", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "400"},
	{"a field that goes on", "GET /a HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\n\r\n", "400"},
	{"a field that goes on behind a tab", "GET /a HTTP/1.1\r\nHost: h\r\nX: y\r\n\tz\r\n\r\n", "400"},
	{"a first field that goes on", "GET /a HTTP/1.1\r\n Host: h\r\n\r\n", "400"},
	{"a length that goes on", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n 5\r\n\r\nhello", "400"},
	{"a coding that goes on", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "400"},
	{"no colon", "GET /a HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", "400"},
	{"no name", "GET /a HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n", "400"},
	{"a space in a name", "GET /a HTTP/1.1\r\nHost: h\r\nX Y: z\r\n\r\n", "400"},
	{"a name that is no token", "GET /a HTTP/1.1\r\nHost: h\r\nX(Y): z\r\n\r\n", "400"},
	{"a quoted name", "GET /a HTTP/1.1\r\nHost: h\r\n\"X\": z\r\n\r\n", "400"},
	{"a name beyond ASCII", "GET /a HTTP/1.1\r\nHost: h\r\nX\xff: z\r\n\r\n", "400"},
	{"NUL in a name", "GET /a HTTP/1.1\r\nHost: h\r\nX\x00: z\r\n\r\n", "400"},
	{"NUL in a value", "GET /a HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", "400"},
	{"a control in a value", "GET /a HTTP/1.1\r\nHost: h\r\nX: a\x01b\r\n\r\n", "400"},
	{"DEL in a value", "GET /a HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n", "400"},
	{"a carriage return in a value", "GET /a HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", "400"},
	{"a tab in a value", "GET /a HTTP/1.1\r\nHost: h\r\nX: a\tb\r\n\r\n", ok},
	{"bytes beyond ASCII in a value", "GET /a HTTP/1.1\r\nHost: h\r\nX: \xff\r\n\r\n", ok},
	{"an empty value", "GET /a HTTP/1.1\r\nHost: h\r\nX:\r\n\r\n", ok},
	{"no space behind the colon", "GET /a HTTP/1.1\r\nHost:h\r\n\r\n", ok},
	{"whitespace around a value", "GET /a HTTP/1.1\r\nHost: \t h \t\r\n\r\n", ok},
	{"an underscore in a name", "POST /a HTTP/1.1\r\nHost: h\r\nContent_Length: 5\r\n\r\n", "POST /a h | GET /b h"},
	{"256 fields", "GET /a HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X: y\r\n", 255) + "\r\n", ok},
	{"257 fields", "GET /a HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X: y\r\n", 256) + "\r\n", "431"},
	{"32 KiB", "GET /a HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 32<<10) + "\r\n\r\n", ok},
	{"64 KiB", "GET /a HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431"},
	{"a target of 64 KiB", "GET /" + strings.Repeat("a", 64<<10) + " HTTP/1.1\r\nHost: h\r\n\r\n", "431"},
	// Host (RFC 9112 3.2).
	{"no Host", "GET /a HTTP/1.1\r\n\r\n", "400"},
	{"two Hosts", "GET /a HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", "400"},
	{"the same Host twice", "GET /a HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", "400"},
	{"two Hosts in HTTP/1.0", "GET /a HTTP/1.0\r\nHost: h\r\nHost: i\r\n\r\n", "400"},
	{"an empty Host", "GET /a HTTP/1.1\r\nHost:\r\n\r\n", "GET /a  | GET /b h"},
	{"two hosts in one Host", "GET /a HTTP/1.1\r\nHost: h i\r\n\r\n", "400"},
	{"a path in Host", "GET /a HTTP/1.1\r\nHost: h/x\r\n\r\n", "400"},
	{"a user in Host", "GET /a HTTP/1.1\r\nHost: u@h\r\n\r\n", "400"},
	{"a port", "GET /a HTTP/1.1\r\nHost: h:80\r\n\r\n", ok},
	{"a host in upper case", "GET /a HTTP/1.1\r\nHost: H\r\n\r\n", ok},
	// Content-Length (RFC 9112 6.3). What comes behind content is not read.
	{"content", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", "POST /a h +content"},
	{"no content", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "POST /a h | GET /b h"},
	{"no content, in many digits", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 000\r\n\r\n",
		"POST /a h | GET /b h"},
	{"content of a GET", "GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", "GET /a h +content"},
	{"content that is a request", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 30\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n", "POST /a h +content"},
	{"a signed length", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello", "400"},
	{"a negative length", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\nhello", "400"},
	{"a hexadecimal length", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello", "400"},
	{"a broken length", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5.0\r\n\r\nhello", "400"},
	{"a length in letters", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: five\r\n\r\nhello", "400"},
	{"a length with an underscore", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1_0\r\n\r\nhellohello", "400"},
	{"two lengths in one", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5 5\r\n\r\nhello", "400"},
	{"a list of a length", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5,\r\n\r\nhello", "400"},
	{"a list of lengths", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello", "400"},
	{"two lengths", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "400"},
	{"the same length twice", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "400"},
	{"no length twice", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", "400"},
	{"an empty length", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", "400"},
	{"a length over 64 bits", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551621\r\n\r\nhello", "400"},
	{"a length over 63 bits", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775808\r\n\r\nhello", "400"},
	{"a length with a tab", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length:\t5\r\n\r\nhello", "POST /a h +content"},
	{"a length with a vertical tab", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: \v5\r\n\r\nhello", "400"},
	{"a length in digits beyond ASCII", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: \xd9\xa5\r\n\r\nhello", "400"},
	// Transfer-Encoding (RFC 9112 6.1).
	{"chunks", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "POST /a h +content"},
	{"chunks in upper case", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", "POST /a h +content"},
	{"no chunk", "GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET /a h +content"},
	{"broken chunks", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nhello\r\n0\r\n\r\n", "POST /a h +content"},
	{"chunks and a length", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "400"},
	{"a length and chunks", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
	{"chunks and no length", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", "400"},
	{"chunks in HTTP/1.0", "POST /a HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
	{"chunks twice", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "501"},
	{"chunks twice in one", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "501"},
	{"chunks not last", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", "501"},
	{"another coding first", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
	{"another coding", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", "501"},
	{"identity", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", "400"},
	{"a coding like chunks", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "501"},
	{"a coding that begins like chunks", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", "501"},
	{"a list of chunks", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", "501"},
	{"a list that begins with nothing", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", "501"},
	{"chunks with a parameter", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;x=y\r\n\r\n0\r\n\r\n", "501"},
	{"quoted chunks", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "501"},
	{"an empty coding", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n", "501"},
	{"chunks with a vertical tab", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", "400"},
	{"chunks with a NUL", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n", "400"},
	{"an underscore in the coding's name", "POST /a HTTP/1.1\r\nHost: h\r\nTransfer_Encoding: chunked\r\n\r\n", "POST /a h | GET /b h"},
	{"a name that ends like the coding's", "POST /a HTTP/1.1\r\nHost: h\r\nX-Transfer-Encoding: chunked\r\n\r\n", "POST /a h | GET /b h"},
	// Connection and Expect (RFC 9110 7.6.1, 10.1.1).
	{"the last request", "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "GET /a h"},
	{"the last request, in a list", "GET /a HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n", "GET /a h"},
	{"the last request, in a second line", "GET /a HTTP/1.1\r\nHost: h\r\nConnection: x\r\nConnection: close\r\n\r\n", "GET /a h"},
	{"the last request, against itself", "GET /a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, close\r\n\r\n", "GET /a h"},
	{"not the last request", "GET /a HTTP/1.1\r\nHost: h\r\nConnection: closed\r\n\r\n", ok},
	{"an upgrade", "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", ok},
	{"an upgrade to HTTP/2", "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", ok},
	{"content that waits for leave", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", "POST /a h +content"},
	{"leave for nothing", "GET /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n", ok},
	{"another expectation", "GET /a HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n", "417"},
	// Ends.
	{"nothing but an empty line", "\r\n", "GET /b h"},
	{"a head without its end", "GET /a HTTP/1.1\r\nHost: h\r\n", "400"},
	{"a TLS handshake", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\n\r\n\r\n", "400"},
	{"no HTTP at all", "hello\r\n\r\n", "400"},
}

// party is something that reads HTTP/1.1.
type party struct {
	name string
	dial func() (net.Conn, error)
}

// says is a reply's body of what a request was.
func says(method, target, host string, content bool) string {
	authority, path, query, ok := topology.SplitTarget(target)
	if authority != "" {
		host = authority
	}
	if query != "" {
		path += "?" + query
	}
	switch {
	case method == "OPTIONS" && target == "*":
		path = "*"
	case !ok:
		return "refused"
	}
	host, _, _ = strings.Cut(host, ":")
	text := method + " " + path + " " + strings.ToLower(host)
	if content {
		text += " +content"
	}
	return text
}

// takes sends bytes and returns what a party took for requests: what it says of each, or the status
// of its refusal.
func (p *party) takes(t *testing.T, sent string) (all []string) {
	t.Helper()
	conn, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		io.WriteString(conn, sent)
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	from := bufio.NewReader(conn)
	for {
		reply, err := http.ReadResponse(from, nil)
		if err != nil {
			return all
		}
		body, err := io.ReadAll(reply.Body)
		switch {
		case reply.StatusCode == 100:
			continue
		case reply.StatusCode != 200:
			return append(all, strconv.Itoa(reply.StatusCode))
		case err != nil:
			return all
		}
		all = append(all, string(body))
	}
}

// What we take for requests is what the table says, however the bytes are split, and what others
// take for the same ones, or refuse.
func TestFraming(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(x *Exchange) {
		x.Reply(&Reply{
			Status: 200, Fields: field.Append(nil, "Content-Type", "text/plain"),
			Mem: []byte(says(x.Method, x.Target, x.Authority, x.HasContent())),
		})
	}, nil)
	us := party{"us", func() (net.Conn, error) { return net.Dial("tcp", r.plain) }}
	others := []party{netHTTP(t), nginx(t), haproxy(t)}
	if len(framingCases) < 120 {
		t.Errorf("%d cases", len(framingCases))
	}
	for _, other := range others { // or there would be nothing to compare
		if other.dial == nil {
			continue
		}
		// HAProxy leaves out the second request if it sees the end of what is sent before it has
		// replied to the first, which a busy machine has it do now and then.
		got := ""
		for try := 0; got != ok; try++ {
			if got = strings.Join(other.takes(t, framingCases[0].sent+behind), " | "); got != ok && try == 100 {
				t.Fatalf("%s takes a plain request for %q", other.name, got)
			}
		}
	}
	for _, test := range framingCases {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ours := us.takes(t, test.sent+behind)
			if got := strings.Join(ours, " | "); got != test.want {
				t.Errorf("we take %q, want %q", got, test.want)
			}
			for _, other := range others {
				if other.dial == nil {
					continue
				}
				theirs := other.takes(t, test.sent+behind)
				t.Logf("%s: %q", other.name, theirs)
				for i := range min(len(ours), len(theirs)) {
					if refuses(ours[i]) || refuses(theirs[i]) {
						break
					}
					if ours[i] != theirs[i] && ours[i] != theirs[i]+" +content" {
						t.Errorf("%s takes %q where we take %q", other.name, theirs[i], ours[i])
					}
				}
			}
		})
	}
}

// refuses reports whether a party has taken something for no request.
func refuses(said string) bool {
	_, err := strconv.Atoi(said)
	return err == nil || said == "refused"
}

func netHTTP(t *testing.T) party {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{DisableGeneralOptionsHandler: true,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, says(r.Method, r.RequestURI, r.Host, r.ContentLength != 0))
		})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return party{"net/http", func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }}
}

// program starts a proxy of Debian's that answers on a socket in a folder of its own, if it is
// installed.
func program(t *testing.T, name, config string, args ...string) party {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") != "" {
			t.Errorf("%s is missing", name)
		}
		return party{name: name}
	}
	dir, err := os.MkdirTemp("", "ew") // t.TempDir is too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file, socket := filepath.Join(dir, "conf"), filepath.Join(dir, "socket")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(config, "DIR", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, arg := range args {
		args[i] = strings.ReplaceAll(arg, "DIR", dir)
	}
	cmd := exec.Command(name, args...)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	dial := func() (net.Conn, error) { return net.Dial("unix", socket) }
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		conn, err := dial()
		if err == nil {
			conn.Close()
			return party{name, dial}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not start: %v\n%s", name, err, output.String())
		}
	}
}

func nginx(t *testing.T) party {
	t.Helper()
	return program(t, "nginx", `
daemon off; master_process off; pid DIR/pid; error_log stderr crit;
events {}
http {
	access_log off; default_type text/plain; keepalive_requests 1000;
	client_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;
	server { listen unix:DIR/socket; merge_slashes off; location / { return 200 "$request_method $request_uri $host"; } }
}`, "-c", "DIR/conf", "-p", "DIR")
}

func haproxy(t *testing.T) party {
	t.Helper()
	return program(t, "haproxy", `
defaults
	mode http
	timeout client 10s
frontend f
	bind unix@DIR/socket
	http-request set-var(txn.host) req.hdr(host),field(1,:),lower
	http-request set-var(txn.path) pathq
	http-request set-var(txn.path) url if { url -m str * }
	http-request return status 200 content-type text/plain lf-string "%[method] %[var(txn.path)] %[var(txn.host)]"
`, "-db", "-f", "DIR/conf")
}

// However the bytes of a head are split, it is read the same.
func TestHeadsAreReadTheSameHoweverTheyCome(t *testing.T) {
	t.Parallel()
	for _, test := range framingCases {
		sent := test.sent + behind
		if len(sent) > 1000 {
			continue
		}
		whole := readHeads(len(sent), sent)
		if bytewise := readHeads(1, sent); bytewise != whole {
			t.Errorf("%s: %s, byte by byte %s", test.name, whole, bytewise)
		}
		for split := range len(sent) {
			var h head
			h.Fields = new(field.Lines)
			done, refused := h.read([]byte(sent[:split]))
			if !done && refused == nil {
				done, refused = h.read([]byte(sent))
			}
			if first, _, _ := strings.Cut(whole, "|"); outcomeOf(&h, done, refused) != first {
				t.Errorf("%s, split at %d: %s, want %s", test.name, split, outcomeOf(&h, done, refused), first)
			}
		}
	}
}

func outcomeOf(h *head, done bool, refused *refusal) string {
	switch {
	case refused != nil:
		return refused.text()
	case !done:
		return "more"
	}
	text := fmt.Sprintf("%s %s %s %q keep=%v content=%v", h.Version, h.Method, h.Target, h.Authority, h.keep(),
		h.content())
	for line := range h.Fields.All() {
		text += fmt.Sprintf(" %q:%q", line.Name, line.Value)
	}
	return text
}

// readHeads reads heads from pieces of so many bytes, until one is refused, has content, or is not
// whole.
func readHeads(piece int, sent string) (all string) {
	var buffer []byte
	h := head{Fields: new(field.Lines)}
	for {
		n := min(piece, len(sent))
		buffer, sent = append(buffer, sent[:n]...), sent[n:]
		for {
			at := h.at
			done, refused := h.read(buffer)
			if !done && refused == nil {
				if sent == "" {
					return all + "more"
				}
				break
			}
			if h.at < at {
				return "went back"
			}
			all += outcomeOf(&h, done, refused) + "|"
			if refused != nil || !h.keep() {
				return all
			}
			buffer = buffer[h.at:]
			h.reset()
		}
	}
}
