package walk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
)

const (
	// A sample is as much of a body as shows whether files come through: most images whole, of
	// others the beginning.
	sampleBytes = 1 << 20
	sampleFor   = time.Second
)

const adviceLengthless = "have the origin send Content-Length, or chunks: without either no file of it is stored, since a cut looks like the end"

// sample reads the beginning of a file that was found, closes it, and adds to the report what a
// head does not show. It reports whether the body holds.
func sample(ctx context.Context, s *StepReport, r *origin.Response) bool {
	// Closing a body while it is read ends the read.
	timer := time.AfterFunc(sampleFor, func() { r.Body.Close() })
	n, err := io.Copy(io.Discard, io.LimitReader(r.Body, sampleBytes))
	late := !timer.Stop() || ctx.Err() != nil
	r.Body.Close()
	switch {
	case err != nil && !late:
		why, advice := "it is not what its Content-Encoding says", "correct the file, or its Content-Encoding"
		if broken, ok := errors.AsType[*origin.BodyError](err); ok {
			why, advice = broken.Detail, broken.Advice
		}
		s.Detail += fmt.Sprintf(", but the body breaks after %d bytes: %s", n, why)
		s.Advice = cmp.Or(advice, s.Advice)
		return false
	case !r.Framed:
		s.Detail += ", without a length"
		s.Advice = adviceLengthless
	}
	return true
}
