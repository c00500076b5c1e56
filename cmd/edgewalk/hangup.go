package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/edgewalk/edgewalk/internal/systemd"
)

// catchHangups is called first by a daemon: from then on SIGHUP and SIGUSR1 do not end the process,
// as they would by default. By custom, daemons take up changed files at SIGHUP, and open logs again
// at SIGUSR1, instead.
func catchHangups() chan os.Signal {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP, syscall.SIGUSR1)
	return hangups
}

// answerHangups runs a daemon until its context ends, and answers each of these with reopen.
func answerHangups(
	ctx context.Context, log *slog.Logger, hangups chan os.Signal, run func(context.Context) error, reopen func() error,
) error {
	ended := make(chan struct{})
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for {
			select {
			case <-ended:
				return
			case s := <-hangups:
				name := unix.SignalName(s.(syscall.Signal))
				if err := reopen(); err != nil {
					log.Error(name, "error", err)
					continue
				}
				log.Info(name + ": logs are opened again; certificates and tokens are read by themselves when they change")
			}
		}
	}()
	defer func() {
		close(ended)
		<-answered
		signal.Stop(hangups)
	}()
	return run(ctx)
}

// nothingToReopen is for daemons that write no files of their own.
func nothingToReopen() error { return nil }

// reporting runs a daemon, and reports its state to systemd meanwhile.
func reporting(
	log *slog.Logger, state func() systemd.State, run func(context.Context) error,
) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		var notified sync.WaitGroup
		notified.Go(func() { systemd.Notify(ctx, log, state) })
		defer notified.Wait()
		defer cancel()
		return run(ctx)
	}
}
