package etcdnode

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo returns a logger for etcd that passes on warnings and errors. Once stopping is set they are
// for debugging only: etcd calls it an error that its listeners are closed. What it calls fatal
// becomes a panic, so that the process does not end without a trace in our log.
func zapTo(log *slog.Logger, stopping *atomic.Bool) *zap.Logger {
	return zap.New(&slogCore{log.With("part", "etcd"), stopping}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

// slogCore writes zap's entries to slog.
type slogCore struct {
	log      *slog.Logger
	stopping *atomic.Bool
}

// harmless are complaints of a server whose first term has only begun; it looks again some seconds
// later.
var harmless = map[string]bool{
	"Failed to detect schema version":  true,
	"failed to update storage version": true,
	"Failed to detect storage schema version. Please wait till wal snapshot before upgrading cluster.": true,
}

func (c *slogCore) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{c.log.With(values(fields)...), c.stopping}
}

func (c *slogCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *slogCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if entry.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	if c.stopping.Load() || harmless[entry.Message] {
		level = slog.LevelDebug
	}
	c.log.Log(context.Background(), level, entry.Message, values(fields)...)
	return nil
}

func (c *slogCore) Sync() error { return nil }

func values(fields []zapcore.Field) []any {
	encoder := zapcore.NewMapObjectEncoder()
	for _, field := range fields {
		field.AddTo(encoder)
	}
	args := make([]any, 0, 2*len(encoder.Fields))
	for name, value := range encoder.Fields {
		args = append(args, slog.Any(name, value))
	}
	return args
}
