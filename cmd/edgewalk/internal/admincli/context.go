package admincli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"
	"google.golang.org/grpc"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// contexts is what login keeps, in a file that the user alone may read.
type contexts struct {
	// Current is the name of the one in use where neither --context nor --server says otherwise.
	Current  string              `yaml:"current,omitempty"`
	Contexts map[string]loggedIn `yaml:"contexts,omitempty"`
}

// loggedIn is where a control plane is, who vouches for it, and what to present to it.
type loggedIn struct {
	Server string `yaml:"server"`
	CA     string `yaml:"ca,omitempty"` // PEM
	Cert   string `yaml:"cert,omitempty"`
	Key    string `yaml:"key,omitempty"` // files, as of --cert and --key
	Token  string `yaml:"token,omitempty"`
}

// shownContext is what --output json says of one: no token.
type shownContext struct {
	Name   string `json:"name"`
	Server string `json:"server"`
	InUse  bool   `json:"inUse"`
}

// contextsFile is below the user's folder for configuration, such as ~/.config.
func contextsFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the folder for configuration: %w", err)
	}
	return filepath.Join(dir, "edgewalk", "contexts.yaml"), nil
}

func readContexts() (*contexts, error) {
	all := &contexts{Contexts: make(map[string]loggedIn)}
	file, err := contextsFile()
	if err != nil {
		return all, nil // no home, no contexts
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read contexts: %w", err)
	}
	if err := yaml.Unmarshal(text, all); err != nil {
		return nil, fmt.Errorf("read contexts: %s is not what edgewalk login has written: correct it, or delete it and log in again", file)
	}
	if all.Contexts == nil {
		all.Contexts = make(map[string]loggedIn)
	}
	return all, nil
}

// write replaces the file as a whole.
func (all *contexts) write() (err error) {
	file, err := contextsFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("keep contexts: %w", err)
	}
	text, err := yaml.Marshal(all)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".contexts-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("keep contexts: %w", err)
	}
	defer os.Remove(tmp.Name()) // not there once it has its name
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("keep contexts: %w", err)
	}
	return os.Rename(tmp.Name(), file)
}

// chooseContext takes server, CA and token from the context that is in use, if one is. A server
// that is named otherwise is never sent the token of a context.
func (c *cli) chooseContext() error {
	named := c.flags.Changed("server") || os.Getenv("EDGEWALK_SERVER") != ""
	if c.context != "" && c.flags.Changed("context") && c.flags.Changed("server") {
		return usagef("--context and --server both say where: use one")
	}
	if c.flags.Changed("server") || c.context == "" && named {
		return nil
	}
	all, err := readContexts()
	if err != nil {
		return err
	}
	if c.context == "" {
		c.context = all.Current
	}
	if c.context == "" {
		return nil
	}
	in, ok := all.Contexts[c.context]
	if !ok {
		return usagef("there is no context %q: edgewalk context ls lists them, edgewalk login makes one", c.context)
	}
	if in.Server == "" {
		file, _ := contextsFile() // It was read.
		return fmt.Errorf("context %s names no server: correct %s, or log in again", c.context, file)
	}
	c.server, c.token, c.authorities = in.Server, in.Token, in.CA
	if c.cert == "" && c.key == "" {
		c.cert, c.key = in.Cert, in.Key
	}
	return nil
}

func (c *cli) loginCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "login --server HOST:PORT",
		Short: "Keep server, CA and token for later commands",
		Long: `Keep server, CA and token as a named context in a file that only you can read, once the control plane has accepted the token. It is read from EDGEWALK_TOKEN,
else from the terminal or standard input. The context is in use from then on, unless --context, --server or EDGEWALK_SERVER says otherwise.`,
		Example: `  edgewalk login --server cp.example.com:7070 --ca ca.pem
  edgewalk login --server https://cp.example.com:7070 --name production < token`,
		Args: exactly(0, "no arguments but flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.context != "" {
				return usagef("login makes a context: name it with --name, and say with --server where")
			}
			if !c.flags.Changed("server") && os.Getenv("EDGEWALK_SERVER") == "" {
				return usagef("say where to log in: --server HOST:PORT")
			}
			in, err := c.newContext(cmd)
			if err != nil {
				return err
			}
			if name == "" {
				name = hostOf(in.Server)
			}
			c.token = in.Token
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				me, err := adminv1.NewTokenServiceClient(conn).WhoAmI(ctx, new(adminv1.WhoAmIRequest))
				if err != nil {
					return err
				}
				all, err := readContexts()
				if err != nil {
					return err
				}
				all.Current, all.Contexts[name] = name, in
				if err := all.write(); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "logged in to %s as %s of %s; context %s is in use\n", in.Server,
					roleName(me.GetToken()),
					strings.Replace(
						strings.TrimPrefix(me.GetToken().GetAccount(), "accounts/"), "*", "all accounts", 1,
					), name)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the context (default the server's host)")
	return cmd
}

// newContext is what the flags and the user say.
func (c *cli) newContext(cmd *cobra.Command) (in loggedIn, err error) {
	in.Server = c.server
	if c.secure() && !strings.HasPrefix(in.Server, "https://") {
		in.Server = "https://" + strings.TrimPrefix(in.Server, "http://")
	}
	if c.ca != "" {
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return in, fmt.Errorf("read --ca: %w", err)
		}
		in.CA = string(pem)
	}
	for file, to := range map[string]*string{c.cert: &in.Cert, c.key: &in.Key} {
		if file == "" {
			continue
		}
		if *to, err = filepath.Abs(file); err != nil {
			return in, err
		}
	}
	in.Token, err = askToken(cmd)
	return in, err
}

// askToken reads a token from the environment, from a terminal without showing it, or from standard
// input.
func askToken(cmd *cobra.Command) (string, error) {
	if token := strings.TrimSpace(os.Getenv("EDGEWALK_TOKEN")); token != "" {
		return token, nil
	}
	var text []byte
	var err error
	if f, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(cmd.ErrOrStderr(), "Token: ")
		text, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
	} else {
		text, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
	}
	if err != nil {
		return "", fmt.Errorf("read a token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", usagef("give a token: in EDGEWALK_TOKEN, or on standard input")
	}
	return token, nil
}

// hostOf is the host of a server's address.
func hostOf(server string) string {
	address := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://"), "/")
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

func (c *cli) contextCommand() *cobra.Command {
	names := func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		all, err := readContexts()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.Sorted(maps.Keys(all.Contexts)), cobra.ShellCompDirectiveNoFileComp
	}
	list := &cobra.Command{
		Use:     "ls",
		Short:   "List what login has kept",
		Example: "  edgewalk context ls",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := readContexts()
			if err != nil {
				return err
			}
			if err := c.checkOutput(); err != nil {
				return err
			}
			names := slices.Sorted(maps.Keys(all.Contexts))
			if !c.forPeople() {
				shown := []shownContext{}
				for _, name := range names {
					shown = append(shown, shownContext{name, all.Contexts[name].Server, name == all.Current})
				}
				return c.printPlain(cmd.OutOrStdout(), map[string]any{"contexts": shown}, names)
			}
			t := table{head: []string{"NAME", "SERVER", "IN USE"}}
			for _, name := range names {
				inUse := ""
				if name == all.Current {
					inUse = "yes"
				}
				t.rows = append(t.rows, []string{name, all.Contexts[name].Server, inUse})
			}
			return t.write(cmd.OutOrStdout(), c.output == "wide")
		},
	}
	change := func(use, short, done string, change func(all *contexts, name string)) *cobra.Command {
		return &cobra.Command{
			Use: use + " NAME", Short: short, Example: "  edgewalk context " + use + " production",
			Args: exactly(1, "the name of a context"), ValidArgsFunction: names,
			RunE: func(cmd *cobra.Command, args []string) error {
				all, err := readContexts()
				if err != nil {
					return err
				}
				if _, ok := all.Contexts[args[0]]; !ok {
					return usagef("there is no context %q: edgewalk context ls lists them", args[0])
				}
				change(all, args[0])
				if err := all.write(); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "context %s %s\n", args[0], done)
				return nil
			},
		}
	}
	return group(&cobra.Command{
		Use:     "context",
		Short:   "List, choose and forget what login has kept",
		Example: "  edgewalk context ls\n  edgewalk context use production",
	}, list,
		change("use", "Use a context from now on", "is in use",
			func(all *contexts, name string) { all.Current = name }),
		change("rm", "Forget a context and its token, which goes on until it is revoked", "is forgotten", func(all *contexts, name string) {
			delete(all.Contexts, name)
			if all.Current == name {
				all.Current = ""
			}
		}))
}

// InUse reports whether commands that name no server go to one that login has kept.
func InUse() bool {
	all, err := readContexts()
	return err == nil && all.Current != ""
}
