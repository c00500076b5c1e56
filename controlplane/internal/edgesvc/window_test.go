package edgesvc

import "testing"

// Room is told of once, and only to a sender that has found none.
func TestWindowTellsOfRoomThatWasWaitedFor(t *testing.T) {
	var w window
	w.resume(1)
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
