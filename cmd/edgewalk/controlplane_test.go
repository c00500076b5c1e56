package main

import (
	"context"
	"testing"

	"github.com/edgewalk/edgewalk/controlplane"
)

// runControlPlane runs a control plane until the test ends, at addresses of its own.
func runControlPlane(t *testing.T, cfg controlplane.Config) *controlplane.ControlPlane {
	t.Helper()
	const any = "127.0.0.1:0"
	cfg.AdminAddr, cfg.EdgeAddr, cfg.HTTPAddr, cfg.MediaAddr = any, any, any, any
	cfg.Logger = newLogger(t.Output(), logOptions{})
	c, err := controlplane.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c
}
