package front

import (
	"time"
)

// conn is one connection.
type conn struct {
	server *Server
	facts  Conn
}

// Read reads what the client sends, without TLS.
func (c *conn) Read(p []byte) (int, error) { panic("soon") }

// Write writes to the client, through TLS, and ends with an error if it takes next to nothing. What it is given in one
// call leaves in records of 16 KiB.
func (c *conn) Write(p []byte) (int, error) { panic("soon") }

// arm has the connection end after a time, give or take a second, unless it is armed anew or disarmed before.
func (c *conn) arm(after time.Duration) {}

// disarm reports whether the time was not over yet.
func (c *conn) disarm() bool { return true }

// onDrain has leave called, in another goroutine, when the server stops: the connection then ends once what is under way
// on it is done. It is called at once if that is so already.
func (c *conn) onDrain(leave func()) {}

// Server serves connections.
type Server struct {
	handler Handler
}
