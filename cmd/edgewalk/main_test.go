package main

import (
	"bytes"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// edgewalk runs one command line.
func edgewalk(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

func TestExitCodes(t *testing.T) {
	const nobody = "127.0.0.1:1" // Reserved, and nothing listens there.
	for _, test := range []struct {
		args string
		code int
		says string // in the output of errors, or of a command that works
	}{
		{"version", 0, "edgewalk "},
		{"--version", 0, "edgewalk "},
		{"version -o json", 0, `"platform": "` + runtime.GOOS + "/" + runtime.GOARCH + `"`},
		{"version -o yaml", 0, "platform: " + runtime.GOOS + "/" + runtime.GOARCH},
		{"version -o xml", 2, "--output is table, json or yaml"},
		{"get accounts -o jsonpath={", 2, "--output jsonpath={"},
		{"--help", 0, "edgewalk dev"},
		{"help apply", 0, "--prune"},
		{"completion bash", 0, "bash completion"},
		{"completion tcsh", 2, `unknown command "tcsh" for "edgewalk completion"`},
		{"explain-field origin -o json", 2, "explain-field prints text for people"},
		{"export acme -o name", 2, `--output of a manifest is yaml, json or jsonpath={...}, not "name"`},
		{"frobnicate", 2, `unknown command "frobnicate"`},
		{"apply --frobnicate", 2, "unknown flag: --frobnicate; see edgewalk apply --help"},
		{"apply", 2, "say what to apply"},
		{"apply -f - extra", 2, "takes no arguments but flags"},
		{"get", 2, "takes a kind and perhaps an id, got no argument; see edgewalk get --help"},
		{"media", 0, "edgewalk media upload"},
		{"aply -f x", 2, `unknown command "aply" for "edgewalk"; did you mean "apply"?`},
		{"--server x aply -f x", 2, `did you mean "apply"?`},
		{"help nosuch", 2, `unknown command "nosuch"`},
		{"media uplod x", 2, `did you mean "upload"?`},
		{"controlplane --admin-addr foo", 2, "--admin-addr foo: it has no port: write it like 127.0.0.1:7070"},
		{"controlplane --tls-cert x", 2, "--tls-cert and --tls-key go together"},
		{"edgeagent --metrics-addr 127.0.0.1:http2", 2, "is no port"},
		{"edgeagent --cert x", 2, "--cert and --key go together"},
		{"edgewalk frobnicate", 2, `unknown command "edgewalk"`},
		{"media frobnicate", 2, `unknown command "frobnicate"`},
		{"media rm -A acme", 2, "takes the paths of files"},
		{"snapshot restore", 2, "edgewalk snapshot restore takes the name of a file, got no argument"},
		{"media backup", 2, "edgewalk media backup takes the name of a folder, got no argument"},
		{"snapshot frobnicate", 2, `unknown command "frobnicate"`},
		{"get origin accounts/acme/origins/a -A other", 2, `belongs to account "acme"`},
		{"get accounts --cert x", 2, "--cert and --key go together"},
		{"get accounts --cert /no/such/cert --key /no/such/key", 1, "/no/such/cert"},
		{"get accounts --server=", 2, "--server is empty"},
		{"get bucket", 2, `"bucket" is no kind`},
		{"get origins", 2, "say which account: --account ID"},
		{"get accounts -o xml --server " + nobody, 2, "--output is table, wide, name, json, yaml or jsonpath={...}"},
		{"create origin legacy -A acme --set web.baseURL=x", 2, `has no field "baseURL"`},
		{"update endpoint default -A acme", 2, "nothing to change"},
		{"purge -A acme", 2, "exactly one of --url"},
		{"purge -A acme --all --tag x", 2, "exactly one of --url"},
		{"wait soon", 2, `"soon" is no revision`},
		{"history -A acme --limit 0", 2, "--limit 0: it is at least 1"},
		{"audit -A acme --limit -1", 2, "--limit -1: it is at least 1"},
		{"media rm /a -A acme --request-id 6", 2, `--request-id "6" is no UUID`},
		{"media upload a b /x -A acme", 2, "several files need a folder"},
		{"edgeagent --cache-size much", 2, `"much" is no size`},
		{"edgeagent --log-format xml", 2, `--log-format "xml": want text, json or auto`},
		{"edgeagent --log-level loud", 2, "want debug, info, warn or error"},
		{"edgeagent --http-addr foo", 2, "--http-addr foo: it has no port: write it like 127.0.0.1:8080"},
		{"edgeagent --check --control-plane " + nobody, 1, "FAIL  --control-plane " + nobody},
		{"controlplane --check --admin-addr foo", 2, "--admin-addr foo: it has no port: write it like 127.0.0.1:7070"},
		{"edgeagent --otlp-endpoint collector:4317", 1, "--otlp-endpoint collector:4317: not a URL such as http://127.0.0.1:4317"},
		{"edgeagent --check --otlp-endpoint http://" + nobody, 1, "FAIL  --otlp-endpoint http://" + nobody},
		{"edgeagent --check --id EU", 1, "FAIL  flags and files: --id"},
		{"controlplane --check --tls-cert x", 1, "FAIL  flags and files: --tls-cert and --tls-key go together"},
		{"controlplane --check --admin-addr 127.0.0.1:0 --edge-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --media-addr 127.0.0.1:0", 0, "ok    --admin-addr"},
		{"edgeagent --debug-addr :6060", 1, "--debug-addr :6060 is not loopback"},
		{"edgeagent --id EU", 1, "--id: edge id \"EU\": use 1 to 63 of a-z"},
		{"edgeagent --metrics-addr 0.0.0.0:0", 1, "--metrics-addr 0.0.0.0:0 is not loopback"},
		{"get accounts --server " + nobody, 1, "no control plane answers at " + nobody},
		{"apply -f /no/such/file --server " + nobody, 1, "/no/such/file"},
	} {
		code, stdout, stderr := edgewalk(t, strings.Fields(test.args)...)
		if code != test.code || !strings.Contains(stdout+stderr, test.says) {
			t.Errorf("edgewalk %s: exit %d, want %d with %q; stdout %q, stderr %q", test.args, code, test.code, test.says, stdout, stderr)
		}
		if code != 0 && stdout != "" && !strings.Contains(test.args, "--check ") {
			t.Errorf("edgewalk %s failed and wrote to standard output: %q", test.args, stdout)
		}
	}
}

// Each command says what it is for and shows how it is typed.
func TestHelpTeaches(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			return // Cobra's own.
		}
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s: short help %q, example %q", cmd.CommandPath(), cmd.Short, cmd.Example)
		}
		for line := range strings.Lines(cmd.Example) {
			if text := strings.TrimSpace(line); text != "" && !strings.HasPrefix(text, "edgewalk ") &&
				!strings.HasPrefix(text, "--") {
				t.Errorf("%s: the example line %q is not something to type", cmd.CommandPath(), text)
			}
		}
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	visit(newRoot(io.Discard))
}

// Help fits a screen, but for examples, which are lines to copy.
func TestHelpFits(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		var out bytes.Buffer
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil {
			t.Error(err)
		}
		examples := strings.Split(cmd.Example, "\n")
		for line := range strings.Lines(out.String()) {
			line = strings.TrimRight(line, "\n")
			if n := len([]rune(line)); n > helpWidth && !slices.Contains(examples, line) &&
				strings.Contains(strings.TrimSpace(line), " ") {
				t.Errorf("%s: %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
		for _, child := range cmd.Commands() {
			if child.Name() != "completion" {
				visit(child)
			}
		}
	}
	visit(newRoot(io.Discard))
}

func TestEnvironmentSetsFlags(t *testing.T) {
	t.Setenv("EDGEWALK_EDGEAGENT_METRICS_ADDR", "0.0.0.0:0")
	code, _, stderr := edgewalk(t, "edgeagent")
	if code != 1 || !strings.Contains(stderr, "--metrics-addr 0.0.0.0:0 is not loopback") {
		t.Errorf("exit %d, %q; want the variable's address refused", code, stderr)
	}
	t.Setenv("EDGEWALK_EDGEAGENT_CACHE_SIZE", "much")
	code, _, stderr = edgewalk(t, "edgeagent")
	if code != 2 || !strings.Contains(stderr, "EDGEWALK_EDGEAGENT_CACHE_SIZE") {
		t.Errorf("exit %d, %q; want an error that names the variable", code, stderr)
	}
	if _, help, _ := edgewalk(t, "edgeagent", "--help"); !strings.Contains(help, "EDGEWALK_EDGEAGENT_HTTP_ADDR") {
		t.Error("the help does not name the variables")
	}
}

// A misspelled variable gets a warning; otherwise a default would silently stay in place.
func TestUnknownVariables(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	root := newRoot(io.Discard)
	warnOfUnknown(root, []string{
		"PATH=/bin", "EDGEWALK_TOKEN=x", "EDGEWALK_EDGEAGENT_HTTP_ADDR=:80", "EDGEWALK_CONTROLPLANE_DATA_DIR=/d",
		"EDGEWALK_EDGEAGENT_HTP_ADDR=secret", "EDGEWALK_HTTP_ADDR=secret",
	}, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	const want = `level=WARN msg="this environment variable sets nothing" name=EDGEWALK_EDGEAGENT_HTP_ADDR hint="there is no flag --htp-addr"
level=WARN msg="this environment variable sets nothing" name=EDGEWALK_HTTP_ADDR hint="a flag of a daemon is set by its name too, such as EDGEWALK_EDGEAGENT_HTTP_ADDR"
`
	if log.String() != want {
		t.Errorf("the log says\n%s\nwant\n%s", log.String(), want)
	}
}

// The log has levels and two forms, and its durations have units.
func TestLogFlags(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		options logOptions
		want    string
	}{
		{logOptions{}, `"msg":"waited","for":"1.5s"}`},
		{logOptions{format: "text"}, "level=INFO msg=waited for=1.5s"},
		{logOptions{level: logLevel{slog.LevelWarn}}, ""},
	} {
		var out strings.Builder
		newLogger(&out, c.options).Info("waited", "for", 1500*time.Millisecond)
		if c.want == "" && out.Len() > 0 || !strings.Contains(out.String(), c.want) {
			t.Errorf("%+v: %q, want %q", c.options, out.String(), c.want)
		}
	}
}
