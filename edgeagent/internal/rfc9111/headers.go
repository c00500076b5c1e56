package rfc9111

import (
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// maxTags is how many tags of one reply count for purges; further ones are ignored.
const maxTags = 64

// Tags returns the reply's purge tags: Cache-Tag separated by commas, Surrogate-Key by spaces, each
// once, at most 64.
func Tags(header Fields) []string {
	var tags []string
	seen := make(map[string]bool)
	add := func(tag string) {
		if tag = field.Trim(tag); tag != "" && !seen[tag] && len(tags) < maxTags {
			seen[tag] = true
			tags = append(tags, tag)
		}
	}
	for _, line := range header("Cache-Tag") {
		for tag := range strings.SplitSeq(line, ",") {
			add(tag)
		}
	}
	for _, line := range header("Surrogate-Key") {
		for tag := range strings.FieldsSeq(line) {
			add(tag)
		}
	}
	return tags
}

// Dropped reports whether a response field, named in canonical form, is never passed on or stored:
// hop-by-hop ones (RFC 9110 7.6.1), those by which one origin would speak for every site on a
// shared host (cookies, transport and reporting policy, service workers), those that say which
// pages may read a reply, which is the endpoint's to say, and edgewalk's own inputs.
func Dropped(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info",
		"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Set-Cookie", "Set-Cookie2", "Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc", "Nel", "Report-To",
		"Service-Worker-Allowed", "Server",
		"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Timing-Allow-Origin",
		"Cache-Tag", "Surrogate-Key":
		return true
	}
	return strings.HasPrefix(name, "X-Amz-") || strings.HasPrefix(name, "X-Ms-") || strings.HasPrefix(name, "X-Goog-")
}

// Strip removes from an origin's response header what is never passed on: see [Dropped], and the
// fields named by the qualified forms of no-cache and private. What Connection names is for whoever
// reads it off the connection to remove. Judge the reply with [Evaluate] and read [Tags] before.
// Names are in canonical form.
func Strip(h map[string][]string) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			delete(h, field.Canonical(field.Trim(name)))
		}
	}
	d := ParseCacheControl(h["Cache-Control"])
	StripNamed(h, &d)
	for name := range h {
		if Dropped(name) {
			delete(h, name)
		}
	}
}

// StripNamed removes the fields that the qualified forms of no-cache and private name.
func StripNamed(h map[string][]string, d *Directives) {
	for _, name := range d.NoCacheFields {
		delete(h, field.Canonical(name))
	}
	for _, name := range d.PrivateFields {
		delete(h, field.Canonical(name))
	}
}

// representation are the fields that say what the bytes of a reply are. A 304 has none, so what it
// says of them is at best a repetition, and often the server's default.
var representation = map[string]bool{
	"Content-Disposition": true, "Content-Encoding": true, "Content-Language": true, "Content-Length": true,
	"Content-Md5": true, "Content-Range": true, "Content-Type": true, "Content-Digest": true, "Repr-Digest": true,
	"Digest": true,
}

// Update brings a stored header up to date with that of a 304 (RFC 9111 3.2): every field the 304
// has replaces the stored one, except those that describe the stored bytes.
func Update(stored, fresh map[string][]string) {
	for name, values := range fresh {
		if !representation[name] {
			stored[name] = values
		}
	}
}

// Codings are the content codings of a reply (RFC 9110 8.4), in lower case and in the order they
// were applied. Identity and empty members are none.
func Codings(header Fields) (codings []string) {
	for _, line := range header("Content-Encoding") {
		for coding := range strings.SplitSeq(line, ",") {
			if coding = strings.ToLower(field.Trim(coding)); coding != "" && coding != "identity" {
				codings = append(codings, coding)
			}
		}
	}
	return codings
}

// AddVary adds a field name to a reply's Vary.
func AddVary(h map[string][]string, name string) {
	names, star := ParseVary(h["Vary"])
	if !star && !slices.Contains(names, strings.ToLower(name)) {
		lines := slices.DeleteFunc(slices.Clone(h["Vary"]), func(line string) bool { return field.Trim(line) == "" })
		h["Vary"] = []string{strings.Join(append(lines, name), ", ")}
	}
}
