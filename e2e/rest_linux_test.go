package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/api/apitest"
)

// ask sends a request to the REST API of a control plane.
func (c *controlPlane) ask(t *testing.T, method, path string, content io.Reader, size int64) (int, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+c.http+path, content)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = size
	r.Header.Set("Authorization", "Bearer "+theToken)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	target, err := url.Parse("http://" + c.http + path)
	if err != nil {
		t.Fatal(err)
	}
	apitest.Check(t, method, target, resp.StatusCode, resp.Header, text)
	return resp.StatusCode, text
}

// A file of 1 GB goes through REST in both directions without being held in memory.
func TestRESTLargeFile(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	const size = 1_000_000_000
	const most = 64 << 20
	f := startFleet(t)
	f.apply(t, "account: {id: big}\n")
	const file = "/v1/accounts/big/mediaFiles/film.mp4"
	bytes := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), size) }
	want := sha256.New()
	if _, err := io.Copy(want, bytes()); err != nil {
		t.Fatal(err)
	}
	f.controlPlane.ask(t, http.MethodPut, "/v1/accounts/big/mediaFiles/small.bin", strings.NewReader("warm"), 4)
	idle := memory(t, f.controlPlane.process, "VmRSS")
	resetPeak(t, f.controlPlane.process)
	status, text := f.controlPlane.ask(t, http.MethodPut, file, bytes(), size)
	if status != http.StatusCreated || !strings.Contains(string(text), hex.EncodeToString(want.Sum(nil))) {
		t.Fatalf("the upload is answered with %d: %s", status, text)
	}
	if growth := memory(t, f.controlPlane.process, "VmHWM") - idle; growth > most {
		t.Errorf("the control plane's memory grew by %d MiB, want at most %d", growth>>20, most>>20)
	} else {
		t.Logf("up: %d MiB, and %d MiB before", growth>>20, idle>>20)
	}
	resetPeak(t, f.controlPlane.process)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.controlPlane.http+file, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+theToken)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := sha256.New()
	if n, err := io.Copy(got, resp.Body); err != nil || n != size || string(got.Sum(nil)) != string(want.Sum(nil)) {
		t.Errorf("%d bytes came back: %v", n, err)
	}
	if growth := memory(t, f.controlPlane.process, "VmHWM") - idle; growth > most {
		t.Errorf("the control plane's memory grew by %d MiB on the way back, want at most %d", growth>>20, most>>20)
	}
}

// Requests that take longer than the listener's deadlines end when they are done.
func TestRESTLongRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	f := startFleet(t)
	f.apply(t, "account: {id: slow}\n")
	uploaded := make(chan int, 1)
	go func() {
		in, out := io.Pipe()
		go func() { // a byte a second, for longer than a request may take by default
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for range 13 {
				<-tick.C
				_, _ = out.Write([]byte("x"))
			}
			_ = out.Close()
		}()
		status, _ := f.controlPlane.ask(t, http.MethodPut, "/v1/accounts/slow/mediaFiles/slow.txt", in, 13)
		uploaded <- status
	}()
	status, text := f.controlPlane.ask(t, http.MethodGet, "/v1/edges:waitApplied?revision=1&minEdges=3&timeout=12s",
		nil, 0)
	var answer struct{ Message string }
	if err := json.Unmarshal(text, &answer); err != nil || status != http.StatusConflict ||
		!strings.Contains(answer.Message, "2 of at least 3 are connected") {
		t.Errorf("a wait of 12 s: %d %s", status, text)
	}
	if status := <-uploaded; status != http.StatusCreated {
		t.Errorf("an upload of 13 s: %d", status)
	}
}
