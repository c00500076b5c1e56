package dev

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Only a folder that a demonstration has made is ever emptied or written to.
func TestPrepare(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		files      []string
		reset      bool
		err        string
		wantedLeft []string
	}{
		{name: "a new folder", wantedLeft: []string{marker}},
		{name: "a new folder, reset", reset: true, wantedLeft: []string{marker}},
		{name: "one of ours", files: []string{marker, "edge"}, wantedLeft: []string{"edge", marker}},
		{name: "one of ours, reset", files: []string{marker, "edge"}, reset: true, wantedLeft: []string{marker}},
		{name: "somebody's", files: []string{"thesis.txt"}, err: "holds something else",
			wantedLeft: []string{"thesis.txt"}},
		{name: "somebody's, reset", files: []string{"thesis.txt"}, reset: true, err: "holds something else",
			wantedLeft: []string{"thesis.txt"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			for _, name := range test.files {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			mark, err := prepare(dir, test.reset)
			if err == nil {
				mark.Close()
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, e := range entries {
				left = append(left, e.Name())
			}
			if strings.Join(left, " ") != strings.Join(test.wantedLeft, " ") {
				t.Errorf("left are %v, want %v", left, test.wantedLeft)
			}
		})
	}
}

// The state of a running demonstration is nobody else's, least of all to delete.
func TestStateOfARunningDev(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mark, err := prepare(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "edge"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, reset := range []bool{false, true} {
		if _, err := prepare(dir, reset); err == nil ||
			!strings.Contains(err.Error(), "another edgewalk dev runs on "+dir) {
			t.Errorf("reset %t: %v", reset, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "edge")); err != nil {
			t.Errorf("reset %t: the state is gone: %v", reset, err)
		}
	}
	mark.Close()
	if mark, err = prepare(dir, true); err != nil {
		t.Fatalf("once it has ended: %v", err)
	}
	mark.Close()
}

// Each request is a line: what was asked, what was answered, who had it, and how long that took.
func TestRequestsArePrinted(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	log := requests{&out}
	for _, line := range []string{
		`{"method":"GET","host":"localhost","account":"demo","url_endpoint":"default","path":"/bag.png","status":200,"bytes":734,"outcome":"miss","supplier":"legacy",` +
			`"steps":[{"origin":"media","outcome":"not_here"},{"origin":"studio","outcome":"not_here"},{"origin":"legacy","outcome":"found"}],"duration_ms":4.218}`,
		`{"method":"HEAD","host":"images.localhost","path":"/hat.png","status":200,"outcome":"hit","supplier":"media","duration_ms":0.05}`,
		`{"method":"GET","host":"localhost:8080","path":"/nobody","status":404,"outcome":"refused","duration_ms":0.1}`,
		`cut`,
	} {
		if _, err := log.Write([]byte(line + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	const want = `GET  /bag.png  200  demo/default at localhost  miss from legacy (media not here, studio not here, legacy found)  4.2 ms
HEAD /hat.png  200  images.localhost  hit from media  0.1 ms
GET  /nobody  404  localhost:8080  refused  0.1 ms
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}

// The authority of --acme asks the edge as soon as there are domains, so they wait for the edge.
func TestDomainsWaitForTheEdge(t *testing.T) {
	t.Parallel()
	const any = "127.0.0.1:0"
	control, err := controlplane.New(t.Context(), controlplane.Config{
		DataDir: t.TempDir(), AdminAddr: any, EdgeAddr: any, HTTPAddr: any, MediaAddr: any, SharedHost: "cdn.test",
		Open: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- control.Run(ctx) }()
	defer func() {
		stop()
		<-ended
	}()
	<-control.Loaded()
	conn, err := grpc.NewClient(control.Addresses().Admin, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	origins := []*runningOrigin{{id: "legacy", url: "http://127.0.0.1:9"}}
	if err := seed(short, conn, origins); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("without an edge: %v", err)
	}
	accounts, err := adminv1.NewAccountServiceClient(conn).ListAccounts(ctx, new(adminv1.ListAccountsRequest))
	if err != nil || len(accounts.GetAccounts()) != 0 {
		t.Errorf("there are %v, %v", accounts.GetAccounts(), err)
	}
}
