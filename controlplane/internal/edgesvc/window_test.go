package edgesvc

import "testing"

// Room is signalled once, and only to a sender that has found none.
func TestWindowTellsOfRoomThatWasWaitedFor(t *testing.T) {
	var w window
	w.resume(1, true)
	for i := range windowFrames {
		if !w.open() {
			t.Fatalf("no room for step %d", i)
		}
		w.add(unit{revision: int64(2 + i), bytes: 1})
	}
	for _, step := range []struct {
		what    string
		sender  bool // looks for room first
		applied int64
		room    bool
	}{
		{"nobody waits", false, 2, false},
		{"there is room", true, 3, false},
	} {
		if step.sender && !w.open() {
			t.Fatalf("%s: no room", step.what)
		}
		if _, _, ok, room := w.take(step.applied); !ok || room != step.room {
			t.Errorf("%s: ok %v, room %v; want true, %v", step.what, ok, room, step.room)
		}
	}
	w.add(unit{revision: 100, bytes: windowBytes})
	if w.open() {
		t.Fatal("room for more bytes than the window has")
	}
	if _, _, _, room := w.take(50); room {
		t.Error("told of room before the large step was applied")
	}
	if _, _, _, room := w.take(100); !room {
		t.Error("not told of room that was waited for")
	}
	if _, _, _, room := w.take(100); room {
		t.Error("told twice")
	}
}

// Of an edge whose state is not known to be right, nothing counts before it has closed the state
// that it is sent.
func TestWindowCountsNothingUnproven(t *testing.T) {
	var w window
	w.resume(10, false)
	if w.covers(10) || w.bookmark(10) != 0 {
		t.Error("where the edge says that it stands counts, though it may be in another history")
	}
	w.add(unit{revision: 20, bytes: 1})
	w.add(unit{revision: 21, bytes: 1})
	if w.covers(10) || w.covers(19) {
		t.Error("what the edge says of before the state counts")
	}
	if _, reached, ok, _ := w.take(20); !ok || reached != 20 {
		t.Errorf("after the state: reached %d, %v; want 20, true", reached, ok)
	}
	if _, reached, ok, _ := w.take(21); !ok || reached != 21 {
		t.Errorf("after the step: reached %d, %v; want 21, true", reached, ok)
	}
}
