package etcdnode

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo returns a logger for etcd that passes on warnings and errors. What etcd calls fatal becomes a panic, so that the
// process does not end without a trace in our log.
func zapTo(log *slog.Logger) *zap.Logger {
	return zap.New(&slogCore{log: log.With("part", "etcd")}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

// slogCore writes zap's entries to slog.
type slogCore struct{ log *slog.Logger }

func (c *slogCore) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log.With(values(fields)...)}
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
