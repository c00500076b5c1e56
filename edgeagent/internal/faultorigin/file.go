package faultorigin

import (
	"fmt"
	"strconv"
	"strings"
)

// File serves body as a good origin does: single ranges, If-Range and If-None-Match by etag, which
// is given with its quotes.
func File(body, etag string, fields ...string) Answer {
	fields = also(fields, "ETag: "+etag, "Accept-Ranges: bytes")
	return func(x *Exchange) {
		h := x.Request.Header
		if h.Get("If-None-Match") == etag {
			Reply(304, "", fields...)(x)
			return
		}
		asked := h.Get("Range")
		if asked == "" || h.Get("If-Range") != "" && h.Get("If-Range") != etag {
			Reply(200, body, fields...)(x)
			return
		}
		first, last, ok := span(asked, len(body))
		if !ok {
			Reply(416, "", also(fields, fmt.Sprintf("Content-Range: bytes */%d", len(body)))...)(x)
			return
		}
		Part(body, first, last, fields...)(x)
	}
}

// Part is a 206 with the bytes first to last of body, whatever was asked.
func Part(body string, first, last int, fields ...string) Answer {
	return Reply(206, body[first:last+1],
		also(fields, fmt.Sprintf("Content-Range: bytes %d-%d/%d", first, last, len(body)))...)
}

// LyingPart is a 206 that says it holds the bytes that were asked for, but holds others.
func LyingPart(contentRange, body string, fields ...string) Answer {
	return Reply(206, body, also(fields, "Content-Range: "+contentRange)...)
}

// span reads "bytes=a-b", "bytes=a-" or "bytes=-n".
func span(asked string, size int) (first, last int, ok bool) {
	from, to, _ := strings.Cut(strings.TrimPrefix(asked, "bytes="), "-")
	if from == "" {
		n, err := strconv.Atoi(to)
		return max(0, size-n), size - 1, err == nil && n > 0 && size > 0
	}
	first, err := strconv.Atoi(from)
	if err != nil || first >= size {
		return 0, 0, false
	}
	last = size - 1
	if to != "" {
		n, err := strconv.Atoi(to)
		if err != nil || n < first {
			return 0, 0, false
		}
		last = min(last, n)
	}
	return first, last, true
}
