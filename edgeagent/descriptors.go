package edgeagent

// capacity is how much an agent does at once, each of which keeps files of the machine's open.
type capacity struct{ connections, requests, fills, idle int }

// wanted is the capacity where nothing bounds it.
var wanted = capacity{connections: 50_000, requests: 20_000, fills: 2_048, idle: 1_024}

// spareFiles are for what is not counted: connections to origins that are kept for later,
// listeners, the journal, the stream, lookups, certificates.
const spareFiles = 1024 + 256

// files are what it keeps open at most: a connection is one, a request reads one, and a fill has a
// connection and a file, and another connection where it asks a second address. Some files of the
// cache stay open for the requests to come.
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
