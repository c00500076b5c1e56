// Command dashboards writes the Grafana dashboards of deploy/grafana.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// all are the dashboards, by the names of their files.
var all = map[string]func() *dashboard.DashboardBuilder{"edges": edges, "controlplane": controlPlane}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dashboards FOLDER")
		os.Exit(2)
	}
	for name, built := range all {
		if err := write(filepath.Join(os.Args[1], name+".json"), built()); err != nil {
			fmt.Fprintln(os.Stderr, "dashboards:", err)
			os.Exit(1)
		}
	}
}

func write(path string, builder *dashboard.DashboardBuilder) error {
	built, err := builder.Build()
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(built, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// source is the Prometheus that the viewer has chosen.
var source = common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("$datasource")}

// newBoard has what all have: the choice of the Prometheus, and of instances of one job.
func newBoard(title, uid, metric string) *dashboard.DashboardBuilder {
	return dashboard.NewDashboardBuilder(title).Uid(uid).Tags([]string{"edgewalk"}).Editable().
		Tooltip(dashboard.DashboardCursorSyncCrosshair).Refresh("30s").Time("now-3h", "now").
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Prometheus").Type("prometheus")).
		WithVariable(dashboard.NewQueryVariableBuilder("instance").Label("Instance").Datasource(source).
			Query(dashboard.StringOrMap{String: cog.ToPtr("label_values(" + metric + ", instance)")}).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Multi(true).IncludeAll(true).AllValue(".*"))
}

// query is one curve, or several with a legend each.
type query struct{ expr, legend string }

func targets[B interface {
	WithTarget(target cog.Builder[variants.Dataquery]) B
}](b B, queries []query) B {
	for _, q := range queries {
		b = b.WithTarget(prometheus.NewDataqueryBuilder().Expr(q.expr).LegendFormat(q.legend))
	}
	return b
}

func graph(title, help, unit string, queries ...query) *timeseries.PanelBuilder {
	return targets(timeseries.NewPanelBuilder().Title(title).Description(help).Unit(unit).Datasource(source).
		Min(0).LineWidth(1).FillOpacity(8).ShowPoints(common.VisibilityModeNever).
		Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).Placement(
			common.LegendPlacementBottom,
		).ShowLegend(
			true,
		)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(
			common.SortOrderDescending,
		)).
		Span(8).Height(8), queries)
}

// number is one figure, green or red.
func number(title, help, unit string, q query, steps ...dashboard.Threshold) *stat.PanelBuilder {
	return targets(stat.NewPanelBuilder().Title(title).Description(help).Unit(unit).Datasource(source).
		ColorMode(common.BigValueColorModeBackground).GraphMode(common.BigValueGraphModeArea).
		Thresholds(dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(steps)).
		Span(4).Height(4), []query{q})
}

func from(value float64, color string) dashboard.Threshold {
	return dashboard.Threshold{Value: cog.ToPtr(value), Color: color}
}

// always is the color below the first threshold.
func always(color string) dashboard.Threshold { return dashboard.Threshold{Color: color} }

const (
	green, yellow, red = "green", "yellow", "red"
	stored             = `outcome=~"hit|stale|revalidated|coalesced"`
	files              = `outcome=~"hit|stale|revalidated|coalesced|miss|passed"`
	on                 = `instance=~"$instance"`
)

func edges() *dashboard.DashboardBuilder {
	return newBoard("edgewalk: edges", "edgewalk-edges", "edgewalk_edge_requests_total").
		WithRow(dashboard.NewRowBuilder("At a glance")).
		WithPanel(number("Requests", "Requests a second.", units.RequestsPerSecond,
			query{"sum(rate(edgewalk_edge_requests_total{" + on + "}[$__rate_interval]))", ""}, always(green))).
		WithPanel(number("Hit ratio", "Share of files that came from the cache.", units.PercentUnit,
			query{
				"sum(rate(edgewalk_edge_requests_total{" + on + "," + stored +
					"}[$__rate_interval])) / sum(rate(edgewalk_edge_requests_total{" + on + "," + files + "}[$__rate_interval]))",
				"",
			},
			always(red), from(0.5, yellow), from(0.8, green))).
		WithPanel(number("Errors", "Share of requests whose file nobody could find out about.", units.PercentUnit,
			query{"sum(rate(edgewalk_edge_requests_total{" + on + `,outcome="error"}[$__rate_interval])) / sum(rate(edgewalk_edge_requests_total{` + on + "}[$__rate_interval]))", ""},
			always(green), from(0.005, yellow), from(0.02, red))).
		WithPanel(number("Sent", "Bytes of bodies a second.", units.BytesPerSecondSI,
			query{"sum(rate(edgewalk_edge_response_bytes_total{" + on + "}[$__rate_interval]))", ""}, always(green))).
		WithPanel(number("Origins left alone", "Origins that did not answer.", units.Short,
			query{`max(edgewalk_origin_breakers{` + on + `,state="open"})`, ""}, always(green), from(1, red))).
		WithPanel(number("Oldest topology", "How long the edge that has waited longest has heard nothing of changes.", units.Seconds,
			query{"max(edgewalk_edge_config_age_seconds{" + on + "})", ""}, always(green), from(60, yellow),
			from(300, red))).
		WithRow(dashboard.NewRowBuilder("Requests")).
		WithPanel(graph("By outcome", "What became of requests.", units.RequestsPerSecond,
			query{
				"sum by (outcome) (rate(edgewalk_edge_requests_total{" + on + "}[$__rate_interval]))", "{{outcome}}",
			})).
		WithPanel(graph("Time of hits and misses, 99th percentile", "From a request's head to the end of its reply.",
			units.Seconds,
			query{`histogram_quantile(0.99, sum by (outcome, le) (rate(edgewalk_edge_request_duration_seconds_bucket{` + on + `,outcome=~"hit|miss|error"}[$__rate_interval])))`, "{{outcome}}"})).
		WithPanel(graph("Refused", "Requests and connections that were turned away, by bound.", units.RequestsPerSecond,
			query{"sum by (reason) (rate(edgewalk_edge_refused_total{" + on + "}[$__rate_interval]))", "{{reason}}"})).
		WithPanel(graph("Hit ratio by edge", "Share of files that came from the cache.", units.PercentUnit,
			query{"instance:edgewalk_edge_hit_ratio:rate5m{" + on + "}", "{{instance}}"})).
		WithPanel(graph("Sent by edge", "Bytes of bodies a second.", units.BytesPerSecondSI,
			query{"sum by (instance) (rate(edgewalk_edge_response_bytes_total{" + on + "}[$__rate_interval]))", "{{instance}}"})).
		WithPanel(graph("In flight", "Requests that are being answered, and files that are being fetched.", units.Short,
			query{"sum(edgewalk_edge_requests_in_flight{" + on + "})", "requests"},
			query{"sum(edgewalk_cache_fills_running{" + on + "})", "fills"})).
		WithRow(dashboard.NewRowBuilder("Origins")).
		WithPanel(graph("Time to the first byte, 99th percentile", "By kind of origin, retries and redirects included.",
			units.Seconds,
			query{"histogram_quantile(0.99, sum by (kind, le) (rate(edgewalk_origin_request_duration_seconds_bucket{" + on + "}[$__rate_interval])))", "{{kind}}"})).
		WithPanel(graph("Steps of walks", "What origins said.", units.RequestsPerSecond,
			query{
				"sum by (kind, outcome) (rate(edgewalk_walk_steps_total{" + on + "}[$__rate_interval]))",
				"{{kind}} {{outcome}}",
			})).
		WithPanel(graph("Failures", "Steps that answered nothing, by reason.", units.RequestsPerSecond,
			query{
				`sum by (kind, reason) (rate(edgewalk_walk_steps_total{` + on +
					`,outcome="inconclusive"}[$__rate_interval]))`,
				"{{kind}} {{reason}}",
			})).
		WithRow(dashboard.NewRowBuilder("Endpoints and origins")).
		WithPanel(graph("Hit ratio by endpoint",
			"Share of files that came from the cache; the ten with most requests.", units.PercentUnit,
			query{
				"(sum by (account, url_endpoint) (rate(edgewalk_endpoint_requests_total{" + on + "," + stored +
					"}[$__rate_interval])) / sum by (account, url_endpoint) (rate(edgewalk_endpoint_requests_total{" + on +
					"," + files + "}[$__rate_interval]))) and topk(10, sum by (account, url_endpoint) (" +
					"rate(edgewalk_endpoint_requests_total{" + on + "}[$__rate_interval])))",
				"{{account}}/{{url_endpoint}}",
			})).
		WithPanel(graph("Latency by origin", "Mean time to the first byte of an answer; the ten slowest.",
			units.Seconds,
			query{
				"topk(10, sum by (account, origin) (rate(edgewalk_origin_step_seconds_total{" + on +
					"}[$__rate_interval])) / sum by (account, origin) (rate(edgewalk_origin_steps_total{" + on +
					"}[$__rate_interval])))",
				"{{account}}/{{origin}}",
			})).
		WithPanel(graph("Sent by endpoint", "Bytes of bodies a second; the ten with most.", units.BytesPerSecondSI,
			query{
				"topk(10, sum by (account, url_endpoint) (rate(edgewalk_endpoint_response_bytes_total{" + on +
					"}[$__rate_interval])))",
				"{{account}}/{{url_endpoint}}",
			})).
		WithRow(dashboard.NewRowBuilder("Cache and topology")).
		WithPanel(graph("Disk", "What the cache has of what it may have.", units.PercentUnit,
			query{"edgewalk_cache_bytes{" + on + "} / edgewalk_cache_limit_bytes{" + on + "}", "{{instance}}"}).Max(1)).
		WithPanel(graph("Objects and evictions", "Objects stored, and how many a second make room.", units.Short,
			query{"sum(edgewalk_cache_objects{" + on + "})", "objects"},
			query{"sum(rate(edgewalk_cache_evictions_total{" + on + "}[$__rate_interval]))", "evictions a second"})).
		WithPanel(graph("Revision", "Edges that are behind are below the others.", units.Short,
			query{"edgewalk_edge_config_revision{" + on + "}", "{{instance}}"}))
}

func controlPlane() *dashboard.DashboardBuilder {
	return newBoard("edgewalk: control plane", "edgewalk-controlplane", "edgewalk_controlplane_revision").
		WithRow(dashboard.NewRowBuilder("At a glance")).
		WithPanel(number("Edges connected", "Edges with a stream to any control plane.", units.Short,
			query{`max(edgewalk_controlplane_edges{` + on + `,state="connected"})`, ""}, always(red), from(1, green))).
		WithPanel(number("Edges missing", "Edges that left without a word.", units.Short,
			query{`max(edgewalk_controlplane_edges{` + on + `,state="lost"})`, ""}, always(green), from(1, yellow))).
		WithPanel(number("Edges behind", "Edges that have not applied what they were sent.", units.Short,
			query{`max(edgewalk_controlplane_edges{` + on + `,state="behind"})`, ""}, always(green), from(1, yellow))).
		WithPanel(number("Changes refused", "Edges that go on with an older version of something.", units.Short,
			query{`max(edgewalk_controlplane_edges{` + on + `,state="rejecting"})`, ""}, always(green), from(1, red))).
		WithPanel(number("In step with etcd", "Time since this was known.", units.Seconds,
			query{"max(edgewalk_controlplane_staleness_seconds{" + on + "})", ""}, always(green), from(15, yellow),
			from(60, red))).
		WithPanel(number("etcd's quota", "What is used of it.", units.PercentUnit,
			query{"max(edgewalk_store_size_bytes{" + on + "} / (edgewalk_store_quota_bytes{" + on + "} > 0))", ""},
			always(green), from(0.6, yellow), from(0.8, red))).
		WithRow(dashboard.NewRowBuilder("Changes")).
		WithPanel(graph("Writes", "Writes of accounts by how they ended.", units.OpsPerSecond,
			query{"sum by (result) (rate(edgewalk_store_writes_total{" + on + "}[$__rate_interval]))", "{{result}}"})).
		WithPanel(graph("From a change to an edge", "From taking a change in to an edge's acknowledgement.",
			units.Seconds,
			query{"histogram_quantile(0.5, sum by (le) (rate(edgewalk_controlplane_append_to_ack_seconds_bucket{" + on + "}[$__rate_interval])))", "median"},
			query{"histogram_quantile(0.99, sum by (le) (rate(edgewalk_controlplane_append_to_ack_seconds_bucket{" + on + "}[$__rate_interval])))", "99th percentile"})).
		WithPanel(graph("Full states", "Whole topologies that were sent, by reason.", units.OpsPerSecond,
			query{"sum by (reason) (rate(edgewalk_controlplane_full_states_total{" + on + "}[$__rate_interval]))", "{{reason}}"})).
		WithRow(dashboard.NewRowBuilder("Admins")).
		WithPanel(graph("Calls", "Calls of the admin API by method.", units.RequestsPerSecond,
			query{
				"sum by (method) (rate(edgewalk_admin_requests_total{" + on + "}[$__rate_interval]))", "{{method}}",
			})).
		WithPanel(graph("Failed calls", "By code.", units.RequestsPerSecond,
			query{
				`sum by (code) (rate(edgewalk_admin_requests_total{` + on + `,code!="OK"}[$__rate_interval]))`,
				"{{code}}",
			})).
		WithPanel(graph("Time of calls, 99th percentile", "By method.", units.Seconds,
			query{"histogram_quantile(0.99, sum by (method, le) (rate(edgewalk_admin_request_duration_seconds_bucket{" + on + "}[$__rate_interval])))", "{{method}}"})).
		WithRow(dashboard.NewRowBuilder("Fleet")).
		WithPanel(graph("Streams", "Open streams of edges by control plane.", units.Short,
			query{"edgewalk_controlplane_streams{" + on + "}", "{{instance}}"})).
		WithPanel(graph("Resources", "Stored resources that edges see, by kind.", units.Short,
			query{"max by (kind) (edgewalk_controlplane_resources{" + on + "})", "{{kind}}"})).
		WithPanel(graph("etcd", "The size of its database, and its quota.", units.BytesIEC,
			query{"max(edgewalk_store_size_bytes{" + on + "})", "size"},
			query{"max(edgewalk_store_quota_bytes{" + on + "})", "quota"}))
}
