package edgeagent

// capacity is how much an agent does at once. Each of these keeps files of the process open.
type capacity struct{ connections, requests, fills, idle int }

// wanted is the capacity if the limit on open files allows it.
var wanted = capacity{connections: 50_000, requests: 20_000, fills: 2_048, idle: 1_024}

// spareFiles is left for what capacity does not count: idle connections to origins, listeners, the
// journal, the stream, lookups, certificates.
const spareFiles = 1024 + 256

// files returns how many files may be open: one for a connection, one for a request, which reads
// it, and three for a fill: a connection, a file, and a second connection for a hedge. Some files
// of the cache stay open for later requests.
func (c capacity) files() int { return c.connections + c.requests + 3*c.fills + c.idle }

// fit returns the capacity that a limit on open files allows.
func fit(limit uint64) capacity {
	total := uint64(wanted.files())
	if limit >= total+spareFiles {
		return wanted
	}
	usable := limit - min(limit/4, spareFiles)
	part := func(n int) int { return max(int(uint64(n)*usable/total), 1) }
	return capacity{
		connections: part(wanted.connections), requests: part(wanted.requests), fills: part(wanted.fills),
		idle: part(wanted.idle),
	}
}
