package rfc9111

import (
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// ParseTargeted reads the lines of a targeted cache control field such as CDN-Cache-Control (RFC
// 9213). It is a structured dictionary (RFC 9651), so one syntax error anywhere makes the field
// invalid; ok is false then, and when it is empty or says nothing but what cannot be, and
// Cache-Control counts instead.
func ParseTargeted(lines []string) (d Directives, ok bool) {
	if len(lines) == 0 {
		return d, false
	}
	p := sfParser{s: strings.Trim(strings.Join(lines, ","), " ")}
	members := make(map[string]sfValue)
	for p.s != "" {
		key, value, valid := p.member()
		if !valid {
			return Directives{}, false
		}
		members[key] = value // the last of equal keys wins (RFC 9651 4.2.2)
		p.skipOWS()
		if p.s == "" {
			break
		}
		if !p.consume(',') {
			return Directives{}, false
		}
		if p.skipOWS(); p.s == "" {
			return Directives{}, false // trailing comma
		}
	}
	for key, value := range members {
		ok = d.setTargeted(key, value) || ok
	}
	return d, ok
}

// setTargeted ignores a directive whose value has a type it cannot have (RFC 9213 2.1), and reports
// whether it did not.
func (d *Directives) setTargeted(key string, v sfValue) bool {
	switch key {
	case "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error":
		if v.kind != sfInteger {
			return false
		}
		d.set(key, v.text, true, false)
	case "no-cache", "private":
		if v.kind == sfString || v.kind == sfToken {
			d.set(key, v.text, true, true)
		} else if v.kind != sfFalse {
			d.set(key, "", false, false)
		}
	default:
		if v.kind != sfFalse {
			d.set(key, "", false, false)
		}
	}
	return true
}

type sfKind uint8

const (
	sfOther sfKind = iota
	sfTrue
	sfFalse
	sfInteger
	sfString
	sfToken
)

type sfValue struct {
	kind sfKind
	text string
}

// sfParser reads the structured fields grammar. s is what remains.
type sfParser struct{ s string }

func (p *sfParser) consume(c byte) bool {
	if p.s == "" || p.s[0] != c {
		return false
	}
	p.s = p.s[1:]
	return true
}

func (p *sfParser) skipOWS() { p.s = field.TrimLeft(p.s) }

// take cuts the longest prefix whose bytes all satisfy ok.
func (p *sfParser) take(ok func(byte) bool) string {
	n := 0
	for n < len(p.s) && ok(p.s[n]) {
		n++
	}
	out := p.s[:n]
	p.s = p.s[n:]
	return out
}

func (p *sfParser) member() (key string, v sfValue, ok bool) {
	if key, ok = p.key(); !ok {
		return "", v, false
	}
	v = sfValue{kind: sfTrue}
	if p.consume('=') {
		if strings.HasPrefix(p.s, "(") {
			v, ok = sfValue{}, p.innerList()
		} else {
			v, ok = p.bareItem()
		}
		if !ok {
			return "", v, false
		}
	}
	return key, v, p.parameters()
}

func (p *sfParser) key() (string, bool) {
	if p.s == "" || !(isLower(p.s[0]) || p.s[0] == '*') {
		return "", false
	}
	return p.take(func(c byte) bool { return isLower(c) || isDigit(c) || strings.IndexByte("_-.*", c) >= 0 }), true
}

func (p *sfParser) parameters() bool {
	for p.consume(';') {
		p.s = strings.TrimLeft(p.s, " ")
		if _, ok := p.key(); !ok {
			return false
		}
		if p.consume('=') {
			if _, ok := p.bareItem(); !ok {
				return false
			}
		}
	}
	return true
}

func (p *sfParser) innerList() bool {
	p.consume('(')
	for {
		p.s = strings.TrimLeft(p.s, " ")
		if p.consume(')') {
			return true
		}
		if _, ok := p.bareItem(); !ok || !p.parameters() {
			return false
		}
		if p.s == "" || p.s[0] != ' ' && p.s[0] != ')' {
			return false
		}
	}
}

func (p *sfParser) bareItem() (sfValue, bool) {
	if p.s == "" {
		return sfValue{}, false
	}
	switch c := p.s[0]; {
	case c == '"':
		return p.quoted()
	case c == '?':
		return p.boolean()
	case c == ':':
		return p.bytes()
	case c == '-' || isDigit(c):
		return p.number()
	case c == '@':
		p.consume('@')
		v, ok := p.number()
		return sfValue{}, ok && v.kind == sfInteger
	case c == '*' || isLower(c) || isUpper(c):
		return sfValue{sfToken, p.take(func(c byte) bool { return field.IsTokenByte(c) || c == ':' || c == '/' })}, true
	}
	return sfValue{}, false
}

func (p *sfParser) quoted() (sfValue, bool) {
	p.consume('"')
	var b strings.Builder
	for p.s != "" {
		c := p.s[0]
		p.s = p.s[1:]
		switch {
		case c == '"':
			return sfValue{sfString, b.String()}, true
		case c == '\\':
			if p.s == "" || p.s[0] != '"' && p.s[0] != '\\' {
				return sfValue{}, false
			}
			c = p.s[0]
			p.s = p.s[1:]
		case c < 0x20 || c >= 0x7f:
			return sfValue{}, false
		}
		b.WriteByte(c)
	}
	return sfValue{}, false
}

func (p *sfParser) boolean() (sfValue, bool) {
	p.consume('?')
	if p.consume('1') {
		return sfValue{kind: sfTrue}, true
	}
	return sfValue{kind: sfFalse}, p.consume('0')
}

func (p *sfParser) bytes() (sfValue, bool) {
	p.consume(':')
	p.take(func(c byte) bool {
		return isLower(c) || isUpper(c) || isDigit(c) || c == '+' || c == '/' || c == '='
	})
	return sfValue{}, p.consume(':')
}

// number reads an integer of at most 15 digits or a decimal of at most 12 + 3 (RFC 9651 3.3.1,
// 3.3.2).
func (p *sfParser) number() (sfValue, bool) {
	sign := ""
	if p.consume('-') {
		sign = "-"
	}
	whole := p.take(isDigit)
	if whole == "" || len(whole) > 15 {
		return sfValue{}, false
	}
	if !p.consume('.') {
		return sfValue{sfInteger, sign + whole}, true
	}
	fraction := p.take(isDigit)
	return sfValue{}, len(whole) <= 12 && fraction != "" && len(fraction) <= 3
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
