// Package fieldpath writes the paths of fields as people type them, and guesses which name was
// meant.
package fieldpath

import (
	"slices"
	"strings"
)

// JSON is a path of names of the .proto in the spelling of ProtoJSON, which manifests, --set and
// the output have: `web.base_url` becomes `web.baseUrl`
// (https://protobuf.dev/programming-guides/json/). What stands in brackets, an index or the key of
// a map, stays as it is, and so does the name of a resource in front:
// `accounts/acme/origins/a_b.web.base_url`.
func JSON(path string) string {
	var b strings.Builder
	depth, upper := 0, false
	start := 0
	if slash := strings.LastIndexByte(path, '/'); slash >= 0 && strings.HasPrefix(path, "accounts/") {
		if start = strings.IndexByte(path[slash:], '.') + slash; start < slash {
			return path
		}
	}
	b.WriteString(path[:start])
	for i := start; i < len(path); i++ {
		c := path[i]
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case depth > 0:
		case c == '_':
			upper = true
			continue
		case upper && 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		}
		upper = false
		b.WriteByte(c)
	}
	return b.String()
}

// Typed is the JSON path of a field of a request without the field that carries the resource, which
// nobody types: `origin.web.base_url` becomes `web.baseUrl`.
func Typed(path string) string {
	for _, carrier := range []string{
		"manifest.", "account.", "origin.", "url_endpoint.", "custom_domain.", "start.", "media_file.", "purge.",
	} {
		path = strings.TrimPrefix(path, carrier)
	}
	return JSON(path)
}

// Hint asks whether the nearest of some names was meant, as in `; did you mean "baseUrl"?`. It is
// empty if none is near.
func Hint(name string, known ...string) string {
	best, distance := "", 0
	for _, one := range known {
		if d := edits(strings.ToLower(name), strings.ToLower(one)); best == "" || d < distance {
			best, distance = one, d
		}
	}
	if best == "" || distance > max(1, min(len(name), len(best))/3) {
		return ""
	}
	return `; did you mean "` + best + `"?`
}

// edits is the least number of letters to insert, delete, replace or swap with their neighbour that
// lead from a to b: the optimal string alignment distance.
func edits(a, b string) int {
	var before []int // the row before the last
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = slices.Min([]int{row[j] + cost, row[j+1] + 1, next[j] + 1})
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
