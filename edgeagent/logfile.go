package edgeagent

import (
	"fmt"
	"os"
	"sync"
)

// logFile is what --access-log names.
type logFile struct {
	path string // "" for standard output, which is never closed

	mu   sync.Mutex
	file *os.File
}

// openLogFile opens a file to append to; `-` stands for standard output, and "" returns nil.
func openLogFile(path string) (*logFile, error) {
	switch path {
	case "":
		return nil, nil
	case "-":
		return &logFile{file: os.Stdout}, nil
	}
	l := &logFile{path: path}
	return l, l.reopen()
}

// reopen continues with the file that has the path now.
func (l *logFile) reopen() error {
	if l.path == "" {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("--access-log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
	}
	l.file = f
	return nil
}

// Write implements [io.Writer]. Lines are written whole.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Write(p)
}

func (l *logFile) close() {
	if l.path == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file.Close()
}
