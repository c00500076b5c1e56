package edgehttp

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
)

// accessEntry is one line of the access log. A query may carry a secret, so only a hash of what is
// kept of it is written: enough to tell two apart.
type accessEntry struct {
	Time        time.Time    `json:"time"`
	RequestID   string       `json:"request_id"`
	Client      string       `json:"client"`
	Protocol    string       `json:"protocol"`
	TLS         string       `json:"tls,omitempty"` // the version
	Method      string       `json:"method"`
	Host        string       `json:"host"`
	Account     string       `json:"account,omitempty"`
	Endpoint    string       `json:"url_endpoint,omitempty"`
	Path        string       `json:"path"`
	QueryHash   string       `json:"query_hash,omitempty"`
	Status      int          `json:"status"`
	Bytes       int64        `json:"bytes"`
	Outcome     string       `json:"outcome"`
	Supplier    string       `json:"supplier,omitempty"`
	Revision    int64        `json:"revision,omitempty"`
	WalkDepth   int          `json:"walk_depth,omitempty"` // how many steps
	Steps       []accessStep `json:"steps,omitempty"`
	Aborted     bool         `json:"aborted,omitempty"`
	UserAgent   string       `json:"user_agent,omitempty"`
	Referer     string       `json:"referer,omitempty"` // without its query
	FirstByteMS float64      `json:"first_byte_ms"`
	DurationMS  float64      `json:"duration_ms"`
}

// accessStep is one step of the walk that a request made or waited for.
type accessStep struct {
	Origin  string  `json:"origin"`
	Outcome string  `json:"outcome"`
	Reason  string  `json:"reason,omitempty"`
	Status  int     `json:"status,omitempty"`
	MS      float64 `json:"ms"`
}

func stepsOf(steps []walk.StepReport) []accessStep {
	if len(steps) == 0 {
		return nil
	}
	all := make([]accessStep, len(steps))
	for i, s := range steps {
		all[i] = accessStep{
			Origin: s.Origin, Outcome: s.Outcome.String(), Reason: string(s.Reason), Status: s.Status,
			MS: milliseconds(s.Duration),
		}
	}
	return all
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

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func hashOf(query string) string {
	if query == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(query))
	return hex.EncodeToString(sum[:6])
}

// accessLog writes lines in the background. A disk that does not keep up costs lines, which are
// counted, and never a request.
type accessLog struct {
	w       io.Writer
	lines   chan []byte
	dropped func()
	log     *slog.Logger
	sample  float64 // the share of requests that have a line
}

// accessBacklog lines wait at most: some 4 MB.
const accessBacklog = 8192

func newAccessLog(w io.Writer, sample float64, dropped func(), log *slog.Logger) *accessLog {
	if w == nil {
		return nil
	}
	return &accessLog{w: w, lines: make(chan []byte, accessBacklog), dropped: dropped, log: log, sample: sample}
}

// wants reports whether a request has a line: errors always have.
func (l *accessLog) wants(status int) bool {
	return l.sample == 0 || status >= 500 || rand.Float64() < l.sample
}

// add hands a line over.
func (l *accessLog) add(e *accessEntry) {
	line, err := json.Marshal(e)
	if err != nil {
		l.dropped()
		return
	}
	select {
	case l.lines <- append(line, '\n'):
	default:
		l.dropped()
	}
}

// run writes until ctx ends, then what is left.
func (l *accessLog) run(ctx context.Context) {
	out := bufio.NewWriterSize(l.w, 64<<10)
	failing := false
	write := func(line []byte) {
		if _, err := out.Write(line); err != nil {
			l.failed(&failing, err)
			out.Reset(l.w)
		}
	}
	flush := func() {
		if err := out.Flush(); err != nil {
			l.failed(&failing, err)
			out.Reset(l.w)
		} else {
			failing = false
		}
	}
	defer flush()
	for {
		select {
		case line := <-l.lines:
			write(line)
			if len(l.lines) == 0 {
				flush()
			}
		case <-ctx.Done():
			for len(l.lines) > 0 {
				write(<-l.lines)
			}
			return
		}
	}
}

// failed counts lost lines, and says so once until it works again.
func (l *accessLog) failed(failing *bool, err error) {
	l.dropped()
	if !*failing {
		*failing = true
		l.log.Error("access log cannot be written; lines are lost", "err", err)
	}
}
