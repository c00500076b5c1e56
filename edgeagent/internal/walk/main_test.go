package walk

import (
	"io"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A rig is a walker, an account, and the origins that its default endpoint lists, a, b, c and so
// on, each a fault origin.
type rig struct {
	*Walker
	library *faultorigin.Origin
	origins []*faultorigin.Origin
	state   *topology.AccountState
	account *topology.Account
	purged  func(endpoint, path, query string, asof int64) bool
}

func newRig(t testing.TB, n int, change ...func(*topology.AccountState)) *rig {
	t.Helper()
	r := &rig{library: faultorigin.New(t), state: topology.NewAccountState("acme", "localhost")}
	client := origin.New(origin.Config{
		AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, MediaURL: r.library.URL,
	})
	t.Cleanup(client.Close)
	r.walk(client)
	r.state.Account = topology.Stored[*topologyv1.Account]{
		Message: &topologyv1.Account{State: topologyv1.Account_ACTIVE}, CreateRevision: 1,
	}
	endpoint := &topologyv1.UrlEndpoint{}
	for i := range n {
		id := string(rune('a' + i))
		fault := faultorigin.New(t)
		r.origins = append(r.origins, fault)
		endpoint.Origins = append(endpoint.Origins, id)
		r.state.Origins[id] = topology.Stored[*topologyv1.Origin]{CreateRevision: int64(10 + i),
			Message: &topologyv1.Origin{
				Kind:     &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: fault.URL()}},
				Timeouts: patient(),
			}}
	}
	r.state.Endpoints[topology.DefaultEndpointID] = topology.Stored[*topologyv1.UrlEndpoint]{
		CreateRevision: 1, Message: endpoint,
	}
	for _, f := range change {
		f(r.state)
	}
	r.compile(t)
	return r
}

// walk gives the rig a walker with a client of its own.
func (r *rig) walk(client *origin.Client) {
	purged := func(account, endpoint, path, query string, asof int64, _ time.Time) bool {
		return r.purged != nil && account == r.account.UID && r.purged(endpoint, path, query, asof)
	}
	r.Walker = New(Config{Client: client, Purged: purged})
}

// patient are timeouts that no busy machine reaches.
func patient() *topologyv1.OriginTimeouts {
	d := durationpb.New(30 * time.Second)
	return &topologyv1.OriginTimeouts{Connect: d, FirstByte: d, Idle: d}
}

func (r *rig) compile(t testing.TB) {
	t.Helper()
	account, rejected := topology.Compile(r.state, r.account)
	if len(rejected) > 0 {
		t.Fatal(rejected)
	}
	r.account = account
}

// endpoint is the message of the default endpoint, for a change of state.
func endpoint(s *topology.AccountState) *topologyv1.UrlEndpoint {
	return s.Endpoints[topology.DefaultEndpointID].Message
}

// to is the request for a path of the default endpoint at revision 100.
func (r *rig) to(path string) *Request {
	t := topology.Target{Account: r.account, Endpoint: r.account.Default(), Host: "localhost", Path: path}
	t.Object, t.ObjectOK = topology.ObjectKey(path)
	return &Request{Target: t, Revision: 100, Header: field.Map{}}
}

// read reads the body of a result and closes it.
func read(t testing.TB, res *Result) string {
	t.Helper()
	if res.Response == nil {
		t.Fatalf("ended %s without a response: %+v", res.Kind, res.Steps)
	}
	defer res.Response.Body.Close()
	b, err := io.ReadAll(res.Response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func discard(res *Result) {
	if res.Response != nil {
		res.Response.Body.Close()
	}
}

// counts says how many requests each origin saw.
func (r *rig) counts() (n []int) {
	for _, o := range r.origins {
		n = append(n, o.Count(faultorigin.Any))
	}
	return n
}
