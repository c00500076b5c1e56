package topology

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Whatever has changed, and in which order, Recompile makes of it what Compile would.
func TestRecompileIsCompile(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := NewAccountState("acme", "files.example")
		revision := int64(1)
		putAt(t, s, Key{Kind: KindAccounts}, &topologyv1.Account{State: topologyv1.Account_ACTIVE}, revision, revision)
		quick, quickRejected := Compile(s, nil)
		whole := quick
		for range 40 {
			changed := map[Key]struct{}{}
			for range 1 + random.IntN(3) {
				revision++
				key, m := anyChange(random)
				created := revision
				if random.IntN(2) == 0 {
					created = 5 // Changed, not created anew.
				}
				putAt(t, s, key, m, created, revision)
				key.Account = "acme"
				changed[key] = struct{}{}
			}
			before := endpointsOf(quick)
			was := quick
			quick, quickRejected = Recompile(s, quick, changed, quickRejected)
			var wholeRejected []*topologyv1.Rejected
			whole, wholeRejected = Compile(s, whole)
			if diff := differ(quick, whole); diff != "" {
				t.Fatalf("seed %d, %v: %s", seed, changed, diff)
			}
			if !slices.EqualFunc(
				quickRejected, wholeRejected, func(x, y *topologyv1.Rejected) bool { return proto.Equal(x, y) },
			) {
				t.Fatalf("seed %d, %v: rejected %v, want %v", seed, changed, quickRejected, wholeRejected)
			}
			if !maps.Equal(before, endpointsOf(was)) {
				t.Fatalf("seed %d, %v: a view that requests may hold has changed", seed, changed)
			}
		}
	}
}

// anyChange makes, changes, breaks or deletes one of a few resources, which refer to each other.
func anyChange(random *rand.Rand) (Key, proto.Message) {
	id := fmt.Sprint("x", random.IntN(4))
	gone := random.IntN(4) == 0
	switch random.IntN(8) {
	case 0:
		return Key{Kind: KindAccounts}, &topologyv1.Account{State: topologyv1.Account_State(1 + random.IntN(2))}
	case 1:
		if gone {
			return Key{Kind: KindOriginSecrets, ID: id}, nil
		}
		return Key{Kind: KindOriginSecrets, ID: id},
			&topologyv1.OriginSecrets{Values: map[string]string{"web.a": fmt.Sprint(random.Uint64())}}
	case 2, 3, 4:
		switch {
		case gone:
			return Key{Kind: KindOrigins, ID: id}, nil
		case random.IntN(4) == 0:
			return Key{Kind: KindOrigins, ID: id}, new(topologyv1.Origin) // Of a kind that is not known.
		}
		return Key{Kind: KindOrigins, ID: id}, webOrigin(fmt.Sprintf("https://h%d.example", random.IntN(3)))
	default:
		if gone {
			return Key{Kind: KindURLEndpoints, ID: id}, nil
		}
		e := &topologyv1.UrlEndpoint{NotFoundPage: fmt.Sprintf("/p%d.html", random.IntN(2))}
		for range random.IntN(3) {
			e.Origins = append(e.Origins, fmt.Sprint("x", random.IntN(4)))
		}
		return Key{Kind: KindURLEndpoints, ID: id}, e
	}
}

// differ says in what two views of an account differ, "" for nothing.
func differ(a, b *Account) string {
	if a.UID != b.UID || a.Deleting != b.Deleting || a.origins.Len() != b.origins.Len() ||
		a.endpoints.Len() != b.endpoints.Len() {
		return fmt.Sprintf("account %+v, want %+v", a, b)
	}
	if x, y := timesNamed(a), timesNamed(b); !maps.Equal(x, y) {
		return fmt.Sprintf("named %v, want %v", x, y)
	}
	for o := range a.origins.All() {
		if other := b.Origin(o.ID); other == nil || o.UID != other.UID || o.Spec != other.Spec ||
			!maps.Equal(o.Secrets, other.Secrets) {
			return "origin " + o.ID
		}
	}
	for id, e := range endpointsOf(a) {
		other, ok := b.LookupEndpoint(id)
		if !ok || (e == nil) != (other == nil) {
			return "endpoint " + id
		}
		if e != nil &&
			(!reflect.DeepEqual(settings(e), settings(other)) ||
				!slices.EqualFunc(e.Steps, other.Steps, func(x, y Step) bool {
					return x.Version == y.Version && (x.Origin == nil) == (y.Origin == nil) &&
						(x.Origin == nil ||
							x.Origin.Spec == y.Origin.Spec && maps.Equal(x.Origin.Secrets, y.Origin.Secrets))
				})) {
			return "endpoint " + id
		}
	}
	return ""
}

// settings are what an endpoint has but for its steps.
func settings(e *Endpoint) Endpoint {
	copied := *e
	copied.Steps = nil
	return copied
}

func endpointsOf(a *Account) map[string]*Endpoint {
	endpoints := map[string]*Endpoint{}
	for held := range a.endpoints.All() {
		endpoints[held.id] = held.endpoint
	}
	return endpoints
}

func timesNamed(a *Account) map[string]int {
	times := map[string]int{}
	for f := range a.named.All() {
		times[f.path] = f.times
	}
	return times
}
