package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type fleetView struct {
	Status *adminv1.GetStatusResponse
	Edges  []edgeRow
	// Revision is the newest that anything here is known to have. Revisions without a change of the
	// topology reach edges before the control plane's own view counts them.
	Revision int64
	Control  bool // the caller may freeze
}

// edgeRow is an edge as the table shows it.
type edgeRow struct {
	*topologyv1.Edge
	Target int64 // the revision that the topology stands at
}

// State says how an edge is: well, behind, frozen, refusing or gone.
func (e edgeRow) State() string {
	switch {
	case !e.GetConnected():
		return "gone"
	case len(e.GetRejected()) > 0:
		return "refusing"
	case e.GetFrozenRevision() > 0:
		return "frozen"
	case e.Behind() > 0:
		return "behind"
	default:
		return "in step"
	}
}

// Behind is how many revisions an edge lacks. Not each is a change that the edge is sent.
func (e edgeRow) Behind() int64 {
	if e.GetLag().AsDuration() == 0 {
		return 0
	}
	return max(0, e.Target-e.GetAppliedRevision())
}

// CachePercent is how full the cache is.
func (e edgeRow) CachePercent() int64 {
	if e.GetCache().GetLimitBytes() == 0 {
		return 0
	}
	return min(100, e.GetCache().GetBytes()*100/e.GetCache().GetLimitBytes())
}

// fleet is how everything stands now.
func (p *page) fleet(ctx context.Context) (fleetView, error) {
	v := fleetView{Control: p.may(adminv1.Rule_FLEET)}
	var err error
	if v.Status, err = adminv1.NewFleetServiceClient(p.d.cfg.Conn).GetStatus(
		ctx, &adminv1.GetStatusRequest{},
	); err != nil {
		return v, err
	}
	edges, err := p.edges(ctx)
	if err != nil {
		return v, err
	}
	v.Revision = v.Status.GetRevision()
	for _, e := range edges {
		v.Revision = max(v.Revision, e.GetAppliedRevision())
		v.Edges = append(v.Edges, edgeRow{e, v.Status.GetRevision()})
	}
	slices.SortStableFunc(v.Edges, func(a, b edgeRow) int { return weight(a) - weight(b) })
	return v, nil
}

// weight puts what needs a look first.
func weight(e edgeRow) int {
	return slices.Index([]string{"refusing", "behind", "frozen", "in step", "gone"}, e.State())
}

func showFleet(p *page) error {
	v, err := p.fleet(p.ctx)
	if err != nil {
		return err
	}
	return p.show("fleet.html", view{
		Title: "Fleet", Nav: "fleet", Lead: "The edges, and how far each has come. This page is live.",
		CLI: []string{"edgewalk edges", "edgewalk status"}, Data: v,
	})
}

const (
	// fleetEvery is how often changes are sent to a viewer.
	fleetEvery = 500 * time.Millisecond
	// fleetWrite bounds how long a viewer may take to read that.
	fleetWrite = 10 * time.Second
)

// streamFleet sends a viewer each change of the fleet: events of
// https://html.spec.whatwg.org/multipage/server-sent-events.html with the part of the page that has
// changed. It ends with the session.
func streamFleet(p *page) error {
	control := http.NewResponseController(p.w)
	p.w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(fleetEvery)
	defer tick.Stop()
	var last []byte
	quiet := 0
	for {
		v, err := p.fleet(p.ctx)
		if err != nil {
			if last != nil { // the browser connects again, and then gets the reason
				return nil
			}
			return err
		}
		var b bytes.Buffer
		if err := pages()["fleet.html"].ExecuteTemplate(&b, "live", v); err != nil {
			return fmt.Errorf("render the fleet: %w", err)
		}
		event := b.Bytes()
		if quiet++; bytes.Equal(event, last) && quiet < 20 {
			event = nil
		}
		if event != nil {
			quiet, last = 0, event
			text, err := json.Marshal(b.String())
			if err != nil {
				return err
			}
			_ = control.SetWriteDeadline(p.d.now().Add(fleetWrite)) // or the connection has none
			if _, err := fmt.Fprintf(p.w, "data: %s\n\n", text); err != nil {
				return nil
			}
			if err := control.Flush(); err != nil {
				return nil
			}
		}
		select {
		case <-p.ctx.Done():
			return nil
		case <-p.d.stopped:
			return nil
		case <-tick.C:
		}
		if one, err := p.d.current(p.r); err != nil || !p.d.now().Before(one.expires) {
			return nil
		}
	}
}

// changeFreeze holds edges, or lets them go on.
func changeFreeze(p *page) error {
	fleet := adminv1.NewFleetServiceClient(p.d.cfg.Conn)
	region := p.value("region")
	if p.value("do") == "unfreeze" {
		if _, err := fleet.UnfreezeEdges(p.ctx, &adminv1.UnfreezeEdgesRequest{Region: region}); err != nil {
			return err
		}
		return p.goTo(Path+"fleet", 0, "", nil)
	}
	revision := int64(0)
	if text := p.value("revision"); text != "" {
		var err error
		if revision, err = strconv.ParseInt(text, 10, 64); err != nil {
			return badInput("The revision is a number, as the table shows it.")
		}
	}
	if _, err := fleet.FreezeEdges(
		p.ctx, &adminv1.FreezeEdgesRequest{Region: region, Revision: revision, Reason: p.value("reason")},
	); err != nil {
		return err
	}
	return p.goTo(Path+"fleet", 0, "", nil)
}
