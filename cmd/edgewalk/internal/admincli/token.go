package admincli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/internal/apitoken"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// accountRoles are the roles of which a token is for an account.
var accountRoles = []string{"admin", "editor", "purger", "viewer"}

func (c *cli) tokenCommand(reset *cobra.Command) *cobra.Command {
	return group(&cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke tokens",
		Long: `Make, list and revoke the tokens that admins, programs and edges present. Roles, from what may everything to what may least:

  root      everything
  operator  accounts, limits, edges, tokens of accounts; reads all; no snapshots
  admin     an account: all of it, and its tokens
  editor    an account: origins, endpoints, domains, files, purges
  purger    an account: purges
  viewer    an account: reads it
  metrics   the control plane's /metrics, for Prometheus
  edge      edges: the topology with the secrets of all origins`,
		Example: `  edgewalk token create --role editor -A acme --description 'the shop'
  edgewalk token ls
  edgewalk token revoke 7xk2mq4zab`,
	}, c.tokenCreateCommand(), c.tokenListCommand(), c.tokenRevokeCommand(), c.whoAmICommand(), reset)
}

func (c *cli) tokenCreateCommand() *cobra.Command {
	var role, expires, description string
	cmd := &cobra.Command{
		Use:   "create --role ROLE",
		Short: "Make a token and print it",
		Long: `Make a token and print it, alone. Nobody can read it again: who loses it makes another. A token of the roles admin, editor, purger and viewer is for one
account, or for all of them with -A '*'.`,
		Example: `  edgewalk token create --role purger -A acme --description 'deploy pipeline' > purger.token
  edgewalk token create --role metrics --expires 365d > /etc/prometheus/edgewalk.token`,
		Args: exactly(0, "no arguments but flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := c.newToken(role, description)
			if err != nil {
				return err
			}
			ttl, err := parseDays(expires)
			if err != nil {
				return usagef("--expires %q: want such as 90d, 12h or 30m", expires)
			}
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				made, err := adminv1.NewTokenServiceClient(conn).CreateToken(ctx,
					&adminv1.CreateTokenRequest{Token: token, Ttl: durationpb.New(ttl)})
				if err != nil {
					return err
				}
				if !c.forPeople() {
					return c.print(cmd.OutOrStdout(), made, nil)
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), made.GetText())
				return err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&role, "role", "", "what it may be used for: root, operator, admin, editor, purger, viewer, metrics or edge")
	f.StringVar(&expires, "expires", "90d", "how long it is good for, 3650d at most")
	f.StringVar(&description, "description", "", "who has it, or what for")
	return cmd
}

// newToken is the token that the flags ask for.
func (c *cli) newToken(role, description string) (*adminv1.Token, error) {
	value := adminv1.Token_Role_value[strings.ToUpper(role)]
	if value == 0 || role == "" {
		return nil, usagef("--role %q: want root, operator, admin, editor, purger, viewer, metrics or edge", role)
	}
	token := &adminv1.Token{Role: adminv1.Token_Role(value), Description: description}
	switch ofAccount := slices.Contains(accountRoles, strings.ToLower(role)); {
	case ofAccount && c.account == "*":
		token.Account = "*"
	case ofAccount:
		parent, err := c.needAccount()
		if err != nil {
			return nil, err
		}
		token.Account = parent
	case c.flags.Changed("account"):
		return nil, usagef("a token of the role %s is for all accounts: leave --account out", role)
	}
	return token, nil
}

// parseDays reads a duration of Go, or a number of days.
func parseDays(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

func (c *cli) tokenListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List the tokens that you may revoke",
		Example: "  edgewalk token ls\n  edgewalk token ls -A acme -o yaml",
		Args:    exactly(0, "no arguments but flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				all := new(adminv1.ListTokensResponse)
				request := &adminv1.ListTokensRequest{PageSize: 1000}
				switch c.account {
				case "", "*":
					request.Account = c.account
				default:
					request.Account = "accounts/" + c.account
				}
				for {
					page, err := adminv1.NewTokenServiceClient(conn).ListTokens(ctx, request)
					if err != nil {
						return err
					}
					all.Tokens = append(all.Tokens, page.GetTokens()...)
					if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
						break
					}
				}
				return c.print(cmd.OutOrStdout(), all, func() table {
					t := table{head: []string{
						"ID", "ROLE", "ACCOUNT", "EXPIRES", "LAST USED", "MADE BY", "AGE", "DESCRIPTION",
					}}
					for _, token := range all.GetTokens() {
						t.rows = append(t.rows, tokenRow(token))
					}
					return t
				})
			})
		},
	}
}

func tokenRow(t *adminv1.Token) []string {
	expires, used := "never", "never"
	if end := t.GetExpireTime(); end != nil {
		expires = "expired"
		if left := time.Until(end.AsTime()); left > 0 {
			expires = "in " + span(left)
		}
	}
	if t.GetLastUseTime() != nil {
		used = age(t.GetLastUseTime()) + " ago"
	}
	return []string{
		t.GetId(), roleName(t), strings.TrimPrefix(t.GetAccount(), "accounts/"), expires, used,
		strings.TrimPrefix(t.GetCreator(), "tokens/"), age(t.GetCreateTime()), t.GetDescription(),
	}
}

func roleName(t *adminv1.Token) string { return strings.ToLower(t.GetRole().String()) }

func (c *cli) tokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID...",
		Short: "End tokens and their calls at every control plane",
		Long:  "End tokens, and the calls and streams under way with them, at every control plane within 2 s. An id is the part of a token after ew1_; the whole token will do.",
		Example: `  edgewalk token revoke 7xk2mq4zab
  edgewalk token revoke "$(cat leaked.token)"`,
		Args: between(1, 1000, "the ids of tokens"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				revoked := []string{}
				for _, arg := range args {
					id := strings.TrimPrefix(strings.TrimSpace(arg), "tokens/")
					if found, ok := apitoken.ID(id); ok {
						id = found
					}
					if _, err := adminv1.NewTokenServiceClient(conn).RevokeToken(
						ctx, &adminv1.RevokeTokenRequest{Name: "tokens/" + id},
					); err != nil {
						return err
					}
					revoked = append(revoked, "tokens/"+id)
					fmt.Fprintf(c.notes(cmd), "tokens/%s revoked\n", id)
				}
				if c.forPeople() {
					return nil
				}
				return c.printPlain(cmd.OutOrStdout(), map[string]any{"revoked": revoked}, revoked)
			})
		},
	}
}

func (c *cli) whoAmICommand() *cobra.Command {
	return &cobra.Command{
		Use:     "whoami",
		Short:   "Tell what your token is and what it allows",
		Example: "  edgewalk token whoami",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				me, err := adminv1.NewTokenServiceClient(conn).WhoAmI(ctx, new(adminv1.WhoAmIRequest))
				if err != nil {
					return err
				}
				return c.print(cmd.OutOrStdout(), me, func() table {
					var may []string
					for _, p := range me.GetPermissions() {
						may = append(may, strings.ToLower(p.String()))
					}
					t := me.GetToken()
					end := "never"
					if t.GetExpireTime() != nil {
						end = t.GetExpireTime().AsTime().Format(time.RFC3339)
					}
					return table{rows: [][]string{
						{"credential", strings.TrimSuffix(me.GetCredential()+" "+t.GetId(), " ")},
						{"role", roleName(t)}, {"account", strings.TrimPrefix(t.GetAccount(), "accounts/")},
						{"expires", end}, {"description", t.GetDescription()},
						{"may", cmp.Or(strings.Join(may, ", "), "nothing here")},
					}}
				})
			})
		},
	}
}
