package auth

import (
	"slices"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Role is what a token may be used for.
type Role = adminv1.Token_Role

// Permission is what a method asks of its caller.
type Permission = adminv1.Rule_Permission

// accountRoles are for one account, or on purpose for all; every other role is for all.
var accountRoles = []Role{adminv1.Token_ADMIN, adminv1.Token_EDITOR, adminv1.Token_PURGER, adminv1.Token_VIEWER}

// OfAccount reports whether a role is for an account.
func OfAccount(r Role) bool { return slices.Contains(accountRoles, r) }

// allowed are the permissions of each role. An edge's token is for the listeners of edges alone.
var allowed = map[Role][]Permission{
	adminv1.Token_ROOT: {
		adminv1.Rule_ANY, adminv1.Rule_READ, adminv1.Rule_FOLLOW, adminv1.Rule_PURGE, adminv1.Rule_WRITE,
		adminv1.Rule_GRANT, adminv1.Rule_ACCOUNTS, adminv1.Rule_FLEET_READ, adminv1.Rule_FLEET, adminv1.Rule_SNAPSHOT,
		adminv1.Rule_METRICS, adminv1.Rule_UPDATE_ACCOUNT, adminv1.Rule_JOIN,
	},
	adminv1.Token_OPERATOR: {
		adminv1.Rule_ANY, adminv1.Rule_READ, adminv1.Rule_FOLLOW, adminv1.Rule_GRANT, adminv1.Rule_ACCOUNTS,
		adminv1.Rule_FLEET_READ, adminv1.Rule_FLEET, adminv1.Rule_METRICS, adminv1.Rule_UPDATE_ACCOUNT,
	},
	adminv1.Token_ADMIN: {
		adminv1.Rule_ANY, adminv1.Rule_READ, adminv1.Rule_FOLLOW, adminv1.Rule_PURGE, adminv1.Rule_WRITE,
		adminv1.Rule_UPDATE_ACCOUNT, adminv1.Rule_GRANT,
	},
	adminv1.Token_EDITOR: {
		adminv1.Rule_ANY, adminv1.Rule_READ, adminv1.Rule_FOLLOW, adminv1.Rule_PURGE, adminv1.Rule_WRITE,
		adminv1.Rule_UPDATE_ACCOUNT,
	},
	adminv1.Token_PURGER:  {adminv1.Rule_ANY, adminv1.Rule_FOLLOW, adminv1.Rule_PURGE},
	adminv1.Token_VIEWER:  {adminv1.Rule_ANY, adminv1.Rule_READ, adminv1.Rule_FOLLOW},
	adminv1.Token_METRICS: {adminv1.Rule_ANY, adminv1.Rule_METRICS},
	adminv1.Token_EDGE:    {},
}

// grants are the roles of tokens that the tokens of a role may make and revoke, for what they are
// themselves for.
var grants = map[Role][]Role{
	adminv1.Token_ROOT: {
		adminv1.Token_ROOT, adminv1.Token_OPERATOR, adminv1.Token_ADMIN, adminv1.Token_EDITOR, adminv1.Token_PURGER,
		adminv1.Token_VIEWER, adminv1.Token_METRICS, adminv1.Token_EDGE,
	},
	adminv1.Token_OPERATOR: {
		adminv1.Token_ADMIN, adminv1.Token_EDITOR, adminv1.Token_PURGER, adminv1.Token_VIEWER, adminv1.Token_METRICS,
	},
	adminv1.Token_ADMIN: {adminv1.Token_ADMIN, adminv1.Token_EDITOR, adminv1.Token_PURGER, adminv1.Token_VIEWER},
}

// Permissions are what a role may do.
func Permissions(r Role) []Permission { return allowed[r] }
