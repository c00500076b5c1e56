package store

import (
	"errors"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// What a position makes of what it receives, and of where etcd stands.
func TestPosition(t *testing.T) {
	at := func(revision int64, tips ...int64) position {
		p := position{knowledge: knowledge{revision: revision}, step: 10}
		for _, n := range tips {
			p.tip = tip{id: "w", revision: n, version: n}
		}
		return p
	}
	f := Follower{Step: func(Step) error { return nil }}
	change := event{revision: 12, records: []topology.Record{{}}}

	p := at(11, 10)
	if err := p.take(f, change); err != nil || p.revision != 12 || p.step != 12 {
		t.Errorf("a change: %+v, %v", p, err)
	}
	p = at(12, 10)
	if err := p.take(f, change); !errors.Is(err, errMissed) {
		t.Errorf("a change at a revision up to which there was none: %v", err)
	}
	p = at(11, 10)
	if err := p.compare(f, knowledge{revision: 20, tip: p.tip}, time.Unix(1, 0)); err != nil || p.revision != 20 ||
		p.asOf.IsZero() {
		t.Errorf("etcd has no newer write: %+v, %v", p, err)
	}
	p = at(11, 10)
	for i := range progressTries + 1 {
		err := p.compare(f, knowledge{revision: 20, tip: tip{id: "w", revision: 15, version: 15}}, time.Unix(1, 0))
		if i < progressTries && (err != nil || p.revision != 11 || !p.asOf.IsZero()) {
			t.Errorf("a write that may be on its way: %+v, %v", p, err)
		}
		if i == progressTries && !errors.Is(err, errMissed) {
			t.Errorf("a write that is not told: %v", err)
		}
	}
	p = at(16, 16)
	if err := p.compare(
		f, knowledge{revision: 15, tip: tip{id: "w", revision: 15, version: 15}}, time.Unix(1, 0),
	); err != nil || p.revision != 16 || p.asOf.IsZero() {
		t.Errorf("an answer that was overtaken: %+v, %v", p, err)
	}
}

func TestFaultsOfVersions(t *testing.T) {
	for text, want := range map[string]int{
		"3.4.23": 1, "3.4.25": 0, "3.5.0": 2, "3.5.4": 1, "3.5.8": 0, "3.6.1": 0, "3.7.0-rc.1": 0,
	} {
		v, err := parseVersion(text)
		if err != nil {
			t.Error(err)
		}
		if found := faultsOf(v); len(found) != want {
			t.Errorf("%s: %d faults, want %d", text, len(found), want)
		}
	}
	if _, err := parseVersion("3.x"); err == nil {
		t.Error("3.x is a version")
	}
	if v, _ := parseVersion("3.3.27"); !v.before(oldest) {
		t.Error("3.3.27 is new enough")
	}
}
