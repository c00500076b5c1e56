package admincli

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func accountRow(m proto.Message) []string {
	a := m.(*topologyv1.Account)
	return []string{a.GetId(), a.GetDisplayName(), a.GetState().String(), age(a.GetCreateTime())}
}

// limitLines are the limits that hold for an account, and which of them are its own.
func limitLines(a *topologyv1.Account) []string {
	all, own := a.GetEffectiveLimits().ProtoReflect(), a.GetLimits().ProtoReflect()
	if !all.IsValid() {
		return nil
	}
	lines := []string{"limits:"}
	fields := all.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !all.Has(f) {
			continue
		}
		value := ""
		if f.IsList() {
			var items []string
			for j := range all.Get(f).List().Len() {
				items = append(items, all.Get(f).List().Get(j).String())
			}
			value = strings.Join(items, ", ")
		} else {
			value = plainValue(f, all.Get(f))
		}
		if strings.HasSuffix(string(f.Name()), "_bytes") {
			value = ByteSize(all.Get(f).Int())
		}
		if own.Has(f) {
			value += " (set)"
		}
		lines = append(lines, fmt.Sprintf("  %-14s %s", f.JSONName(), value))
	}
	return lines
}

func originRow(m proto.Message) []string {
	o := m.(*topologyv1.Origin)
	return []string{
		o.GetId(), topology.KindOf(o), topology.Location(o), originHealth(o.GetHealth()),
		strings.Join(o.GetSecretsSet(), ", "), age(o.GetCreateTime()),
	}
}

func endpointRow(m proto.Message) []string {
	e := m.(*topologyv1.UrlEndpoint)
	mode := e.GetCache().GetMode()
	if mode == topologyv1.CachePolicy_MODE_UNSPECIFIED {
		mode = topologyv1.CachePolicy_RESPECT
	}
	urls := ""
	if n := len(e.GetUrls()); n > 0 {
		urls = e.GetUrls()[0]
		switch {
		case e.GetMoreUrls():
			urls += fmt.Sprintf(" and more than %d more", n-1)
		case n > 1:
			urls += fmt.Sprintf(" and %d more", n-1)
		}
	}
	return []string{
		e.GetId(), strings.Join(e.GetWalk(), " → "), e.GetDefaultImage().GetPath(), mode.String(), urls,
		age(e.GetCreateTime()),
	}
}

func domainRow(m proto.Message) []string {
	d := m.(*topologyv1.CustomDomain)
	return []string{
		d.GetDomain(), d.GetMode().String(), d.GetUrlEndpoint(), d.GetState().String(), age(d.GetCreateTime()),
	}
}

func mediaRow(m proto.Message) []string {
	f := m.(*topologyv1.MediaFile)
	sum := f.GetSha256()
	if len(sum) > 12 {
		sum = sum[:12]
	}
	return []string{
		"/" + f.GetId(), ByteSize(f.GetSizeBytes()), f.GetContentType(), sum, strings.Join(f.GetTags(), ", "),
		age(f.GetUpdateTime()),
	}
}

func purgeRow(m proto.Message) []string {
	p := m.(*topologyv1.Purge)
	e := p.GetEdges()
	edges := fmt.Sprintf("%d done, %d pending", e.GetDone(), e.GetPending())
	if e.GetOffline() > 0 {
		edges += fmt.Sprintf(", %d offline", e.GetOffline())
	}
	return []string{
		p.GetId(), p.GetKind().String(), purgeScope(p), p.GetState().String(), edges,
		strconv.FormatInt(p.GetRevision(), 10), age(p.GetCreateTime()),
	}
}

// purgeScope says what a purge covers.
func purgeScope(p *topologyv1.Purge) string {
	switch s := p.GetScope().(type) {
	case *topologyv1.Purge_Urls_:
		urls := s.Urls.GetUrls()
		if len(urls) == 1 {
			return "url " + urls[0]
		}
		return fmt.Sprintf("%d urls", len(urls))
	case *topologyv1.Purge_Prefix:
		return "prefix " + s.Prefix
	case *topologyv1.Purge_Tag:
		return "tag " + s.Tag
	case *topologyv1.Purge_UrlEndpoint:
		return "endpoint " + s.UrlEndpoint
	case *topologyv1.Purge_Everything:
		return "everything"
	}
	return ""
}

func edgeRow(m proto.Message) []string {
	e := m.(*topologyv1.Edge)
	cache := ByteSize(e.GetCache().GetBytes()) + " of " + ByteSize(e.GetCache().GetLimitBytes())
	connected := yesNo(e.GetConnected())
	if at := e.GetFrozenRevision(); at > 0 {
		connected += fmt.Sprintf(", frozen at %d", at)
	}
	return []string{e.GetId(), e.GetRegion(), connected, strconv.FormatInt(e.GetAppliedRevision(), 10),
		span(e.GetLag().AsDuration()), yesNo(e.GetDurable()),
		strconv.FormatInt(e.GetCache().GetObjects(), 10), cache, strconv.Itoa(len(e.GetRejected())),
		age(e.GetLastSeen()), e.GetVersion(), e.GetAddress()}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
