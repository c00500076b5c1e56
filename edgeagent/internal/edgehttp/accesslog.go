package edgehttp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/front"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
)

// accessEntry is one line of the access log.
type accessEntry struct {
	Time              time.Time
	RequestID         [32]byte
	Client            netip.Addr
	Version           front.Version
	TLS               uint16 // its version, 0 without TLS
	Method, Host      string
	Account, Endpoint string // ids
	Path, Query       string
	Status            int
	Bytes             int64
	Outcome, Supplier string
	Revision          int64
	Steps             []walk.StepReport // of the walk that the request made or waited for
	Aborted           bool
	UserAgent         string
	Referer           string        // without its query
	FirstByte, Took   time.Duration // since the request had come
}

// append appends the line, which is a JSON object (RFC 8259). It is written by hand, because every
// hit has one. A query may carry a secret, so the line has only a hash of what is kept of it:
// enough to tell two apart.
func (e *accessEntry) append(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","request_id":"`...)
	b = append(b, e.RequestID[:]...)
	b = append(b, `","client":"`...)
	if e.Client.IsValid() {
		b = e.Client.AppendTo(b)
	}
	b = append(b, `","protocol":"`...)
	b = append(append(b, e.Version.String()...), '"')
	if e.TLS != 0 {
		b = appendMember(b, "tls", tls.VersionName(e.TLS))
	}
	b = appendMember(b, "method", e.Method)
	b = appendMember(b, "host", e.Host)
	b = appendKnown(b, "account", e.Account)
	b = appendKnown(b, "url_endpoint", e.Endpoint)
	b = appendMember(b, "path", e.Path)
	if e.Query != "" {
		b = append(b, `,"query_hash":"`...)
		b = append(appendHash(b, e.Query), '"')
	}
	b = appendNumber(b, "status", int64(e.Status))
	b = appendNumber(b, "bytes", e.Bytes)
	b = appendMember(b, "outcome", e.Outcome)
	b = appendKnown(b, "supplier", e.Supplier)
	if e.Revision != 0 {
		b = appendNumber(b, "revision", e.Revision)
	}
	b = appendSteps(b, e.Steps)
	if e.Aborted {
		b = append(b, `,"aborted":true`...)
	}
	b = appendKnown(b, "user_agent", e.UserAgent)
	b = appendKnown(b, "referer", e.Referer)
	b = appendMilliseconds(b, "first_byte_ms", e.FirstByte)
	b = appendMilliseconds(b, "duration_ms", e.Took)
	return append(b, "}\n"...)
}

// appendSteps appends how many steps there were, and each of them.
func appendSteps(b []byte, steps []walk.StepReport) []byte {
	if len(steps) == 0 {
		return b
	}
	b = appendNumber(b, "walk_depth", int64(len(steps)))
	b = append(b, `,"steps":[`...)
	for i, s := range steps {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, `{"origin":`...), s.Origin)
		b = appendMember(b, "outcome", s.Outcome.String())
		b = appendKnown(b, "reason", string(s.Reason))
		if s.Status != 0 {
			b = appendNumber(b, "status", int64(s.Status))
		}
		b = append(appendMilliseconds(b, "ms", s.Duration), '}')
	}
	return append(b, ']')
}

// appendName appends the name of a member that is not the first of its object. Names need no
// escapes.
func appendName(b []byte, name string) []byte {
	return append(append(append(b, `,"`...), name...), `":`...)
}

func appendMember(b []byte, name, text string) []byte { return appendText(appendName(b, name), text) }

// appendKnown appends a member that is left out if it is empty.
func appendKnown(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	return appendMember(b, name, text)
}

func appendNumber(b []byte, name string, n int64) []byte {
	return strconv.AppendInt(appendName(b, name), n, 10)
}

// appendMilliseconds appends a time with three decimal places at most.
func appendMilliseconds(b []byte, name string, d time.Duration) []byte {
	return strconv.AppendFloat(appendName(b, name), float64(d.Microseconds())/1000, 'f', -1, 64)
}

const hexDigits = "0123456789abcdef"

// appendText appends a JSON string. Bytes that are no UTF-8 become U+FFFD, as package encoding/json
// has it. All control characters are escaped, of which JSON allows some: a terminal that shows the
// log obeys none.
func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if ' ' <= c && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		r, n := rune(c), 1
		if c >= utf8.RuneSelf {
			if r, n = utf8.DecodeRuneInString(s[i:]); n > 1 && r >= 0xa0 {
				i += n
				continue
			}
		}
		b = append(b, s[from:i]...)
		switch {
		case c == '"', c == '\\':
			b = append(b, '\\', c)
		case r == utf8.RuneError:
			b = append(b, `\ufffd`...)
		default:
			b = append(append(b, `\u00`...), hexDigits[r>>4], hexDigits[r&0xf])
		}
		i += n
		from = i
	}
	return append(append(b, s[from:]...), '"')
}

// appendHash appends the beginning of a hash of a query.
func appendHash(b []byte, query string) []byte {
	at := len(b)
	b = append(b, query...) // so that it is bytes without memory of their own
	sum := sha256.Sum256(b[at:])
	return hex.AppendEncode(b[:at], sum[:6])
}

// maxFromBrowser bounds what a line has of a field that clients fill in as they like.
const maxFromBrowser = 512

// fromBrowser returns User-Agent, and Referer without its query, which may hold a secret.
func fromBrowser(fields *field.Lines) (agent, referer string) {
	for line := range fields.All() {
		switch {
		case strings.EqualFold(line.Name, "User-Agent"):
			agent = line.Value
		case strings.EqualFold(line.Name, "Referer"):
			referer, _, _ = strings.Cut(line.Value, "?")
			referer, _, _ = strings.Cut(referer, "#")
			if scheme, rest, found := strings.Cut(referer, "://"); found {
				if host, path, _ := strings.Cut(rest, "/"); strings.Contains(host, "@") {
					_, host, _ = strings.Cut(host, "@")
					referer = scheme + "://" + host + "/" + path
				}
			}
		}
	}
	return agent[:min(len(agent), maxFromBrowser)], referer[:min(len(referer), maxFromBrowser)]
}

// accessLog writes lines in the background. A disk that does not keep up costs lines, which are
// counted, and never a request.
type accessLog struct {
	w       io.Writer
	dropped func(lines int)
	log     *slog.Logger
	sample  float64 // the share of requests that have a line

	mu    sync.Mutex
	lines []byte        // those that wait
	some  chan struct{} // has a token when the first line waits

	// What follows belongs to the goroutine that writes.
	spare   []byte // memory for lines
	cut     bool   // The last line was written in part.
	failing bool
}

const (
	// accessBacklog is how many bytes of lines wait at most.
	accessBacklog = 4 << 20
	// accessKept is how much memory is kept for the lines of one write.
	accessKept = 512 << 10
	// accessPause is how long lines wait for others, so that a busy edge does not write each by
	// itself.
	accessPause = 10 * time.Millisecond
)

func newAccessLog(w io.Writer, sample float64, dropped func(lines int), log *slog.Logger) *accessLog {
	if w == nil {
		return nil
	}
	return &accessLog{w: w, dropped: dropped, log: log, sample: sample, some: make(chan struct{}, 1)}
}

// wants reports whether a request gets a line. Errors of the server always do.
func (l *accessLog) wants(status int) bool {
	return l.sample == 0 || status >= 500 || rand.Float64() < l.sample
}

// add takes a line. It does not keep its memory.
func (l *accessLog) add(line []byte) {
	l.mu.Lock()
	first, fits := len(l.lines) == 0, len(l.lines)+len(line) <= accessBacklog
	if fits {
		l.lines = append(l.lines, line...)
	}
	l.mu.Unlock()
	if !fits {
		l.dropped(1)
	} else if first {
		select {
		case l.some <- struct{}{}:
		default:
		}
	}
}

// run writes until ctx ends, then what is left.
func (l *accessLog) run(ctx context.Context) {
	pause := time.NewTimer(accessPause)
	defer pause.Stop()
	defer l.write()
	for {
		select {
		case <-l.some:
			l.write()
		case <-ctx.Done():
			return
		}
		pause.Reset(accessPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// write writes the lines that wait, all with one call, so that none is torn when the file becomes
// another one.
func (l *accessLog) write() {
	l.mu.Lock()
	lines := l.lines
	l.lines = l.spare[:0]
	l.mu.Unlock()
	l.spare = nil
	if cap(lines) <= accessKept {
		l.spare = lines
	}
	if len(lines) == 0 {
		return
	}
	if l.cut {
		if _, err := l.w.Write([]byte("\n")); err != nil {
			l.failed(lines, err)
			return
		}
		l.cut = false
	}
	n, err := l.w.Write(lines)
	if err != nil {
		l.cut = n > 0 && lines[n-1] != '\n'
		l.failed(lines[n:], err)
		return
	}
	l.failing = false
}

// failed counts lost lines, and says so once until it works again.
func (l *accessLog) failed(lines []byte, err error) {
	l.dropped(bytes.Count(lines, []byte("\n")))
	if !l.failing {
		l.failing = true
		l.log.Error("access log cannot be written; lines are lost", "err", err)
	}
}
