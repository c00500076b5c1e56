package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/edgewalk/edgewalk/cmd/edgewalk/internal/admincli"
)

// logOptions are the flags of a daemon's log.
type logOptions struct {
	level  logLevel
	format string // auto, text or json; empty for auto
}

// logLevel is a level that says which there are.
type logLevel struct{ slog.Level }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (l *logLevel) UnmarshalText(text []byte) error {
	if l.Level.UnmarshalText(text) != nil {
		return errors.New("want debug, info, warn or error")
	}
	return nil
}

func addLogFlags(cmd *cobra.Command) *logOptions {
	o := new(logOptions)
	cmd.Flags().TextVar(&o.level, "log-level", logLevel{slog.LevelInfo},
		"least level of what is logged: debug, info, warn or error")
	cmd.Flags().StringVar(&o.format, "log-format", "auto", "form of the log: text, json, or auto for text on a terminal and json elsewhere")
	return o
}

// logger is what a daemon logs with, and libraries through the log package.
func (o *logOptions) logger(cmd *cobra.Command) (*slog.Logger, error) {
	switch o.format {
	case "auto", "text", "json":
	default:
		return nil, admincli.AsUsage(fmt.Errorf("--log-format %q: want text, json or auto", o.format))
	}
	log := newLogger(cmd.ErrOrStderr(), *o)
	slog.SetDefault(log)
	return log, nil
}

// newLogger writes for people on a terminal and JSON elsewhere, unless the options say otherwise.
func newLogger(w io.Writer, o logOptions) *slog.Logger {
	options := &slog.HandlerOptions{Level: o.level.Level, ReplaceAttr: withUnits}
	f, ok := w.(*os.File)
	if o.format == "text" || o.format != "json" && ok && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// withUnits writes durations as 1.5s, which JSON would have as a number of nanoseconds.
func withUnits(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
