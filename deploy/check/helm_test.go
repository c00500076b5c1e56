package check

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const chart = "../helm/edgewalk"

// settings are values of a user, beside the defaults.
type settings = map[string]any

var insecure = settings{"insecureListen": true}

// render returns the manifests of the chart.
func render(values settings) (string, error) {
	loaded, err := loader.Load(chart)
	if err != nil {
		return "", err
	}
	all, err := util.ToRenderValues(loaded, values,
		common.ReleaseOptions{Name: "shop", Namespace: "web", IsInstall: true}, nil)
	if err != nil {
		return "", err
	}
	files, err := engine.Render(loaded, all)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			text.WriteString(files[name] + "\n---\n")
		}
	}
	return text.String(), nil
}

// decode reads manifests strictly: no field that Kubernetes does not know, and none twice.
func decode(t *testing.T, text string) (kinds map[string]int, args map[string][]string) {
	t.Helper()
	kinds, args = map[string]int{}, map[string][]string{}
	for document := range strings.SplitSeq(text, "\n---\n") {
		if len(bytes.TrimSpace([]byte(document))) == 0 {
			continue
		}
		var head struct{ Kind string }
		if err := yaml.Unmarshal([]byte(document), &head); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		if head.Kind == "" {
			continue // comments alone
		}
		kinds[head.Kind]++
		var into any
		switch head.Kind {
		case "StatefulSet":
			into = new(appsv1.StatefulSet)
		case "Service":
			into = new(corev1.Service)
		case "PodDisruptionBudget":
			into = new(policyv1.PodDisruptionBudget)
		case "NetworkPolicy":
			into = new(networkingv1.NetworkPolicy)
		case "ServiceMonitor": // of the Prometheus operator
			into = new(map[string]any)
		default:
			t.Errorf("a %s is not expected", head.Kind)
			continue
		}
		if err := yaml.UnmarshalStrict([]byte(document), into); err != nil {
			t.Errorf("%v\n%s", err, document)
		}
		if set, ok := into.(*appsv1.StatefulSet); ok {
			container := set.Spec.Template.Spec.Containers[0]
			args[container.Name] = container.Args
			const label = "app.kubernetes.io/name"
			if set.Spec.Selector.MatchLabels[label] != set.Spec.Template.Labels[label] {
				t.Errorf("%s does not select its pods", set.Name)
			}
			mounted := map[string]bool{}
			for _, v := range set.Spec.Template.Spec.Volumes {
				mounted[v.Name] = true
			}
			mounted["data"] = true
			for _, m := range container.VolumeMounts {
				if !mounted[m.Name] {
					t.Errorf("%s mounts %s, which is no volume", set.Name, m.Name)
				}
			}
		}
	}
	return kinds, args
}

func TestChart(t *testing.T) {
	t.Parallel()
	secured := settings{
		"tls":            settings{"secretName": "cp-tls"},
		"serviceMonitor": settings{"enabled": true, "labels": settings{"release": "prometheus"}},
		"controlplane": settings{
			"replicas": 2, "mediaUrl": "s3://media?region=eu-central-1",
			"etcd":        settings{"endpoints": []any{"https://etcd-0:2379", "https://etcd-1:2379"}},
			"extraArgs":   []any{"--canary-region=eu"},
			"tolerations": []any{settings{"key": "dedicated", "operator": "Exists"}},
		},
		"edge": settings{
			"tlsSecretName": "site-tls", "region": "eu", "allowPrivateOrigins": true,
			"nodeSelector": settings{"disk": "nvme"},
			"storage":      settings{"size": "100Gi", "className": "local-nvme"},
		},
	}
	for _, c := range []struct {
		name   string
		values settings
		kinds  map[string]int
		args   map[string][]string
	}{
		{
			"small", insecure,
			map[string]int{"StatefulSet": 2, "Service": 4, "PodDisruptionBudget": 1, "NetworkPolicy": 2},
			map[string][]string{
				"controlplane": {"--insecure-listen", "--media-advertise-url=http://shop-controlplane.web.svc:7073", "--secret-key-file=/etc/edgewalk/secrets/secret-key"},
				"edge": {
					"--control-plane=shop-controlplane.web.svc:7071", "--cache-size=50GiB", "--id=$(POD_NAME)",
				},
			},
		},
		{
			"secured", secured,
			map[string]int{
				"StatefulSet": 2, "Service": 4, "PodDisruptionBudget": 2, "NetworkPolicy": 2, "ServiceMonitor": 2,
			},
			map[string][]string{
				"controlplane": {
					"--tls-cert=/etc/edgewalk/tls/tls.crt", "--etcd-endpoints=https://etcd-0:2379,https://etcd-1:2379",
					"--canary-region=eu",
				},
				"edge": {
					"--ca=/etc/edgewalk/ca/ca.crt", "--https-addr=:8443", "--allow-private-origins", "--region=eu",
				},
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text, err := render(c.values)
			if err != nil {
				t.Fatal(err)
			}
			kinds, args := decode(t, text)
			if !maps.Equal(kinds, c.kinds) {
				t.Errorf("kinds %v, want %v", kinds, c.kinds)
			}
			for container, wanted := range c.args {
				for _, arg := range wanted {
					if !slices.Contains(args[container], arg) {
						t.Errorf("%s has no %s: %q", container, arg, args[container])
					}
				}
				checkFlags(t, args[container])
			}
		})
	}
}

// What cannot work is refused, with the fix.
func TestChartRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		values settings
		says   string
	}{
		"neither TLS nor its absence": {settings{}, "tls.secretName"},
		"several with the etcd inside": {
			settings{"insecureListen": true, "controlplane": settings{"replicas": 2}}, "controlplane.etcd.endpoints",
		},
		"several with a media folder": {
			settings{
				"insecureListen": true,
				"controlplane":   settings{"replicas": 2, "etcd": settings{"endpoints": []any{"http://e:2379"}}},
			},
			"controlplane.mediaUrl",
		},
		"a value that is none": {settings{"insecureListen": true, "edge": settings{"replica": 3}}, "replica"},
		"a size that is none":  {settings{"insecureListen": true, "edge": settings{"cacheSize": "50 GB"}}, "cacheSize"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := render(c.values); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error is %v, want one about %s", err, c.says)
			}
		})
	}
}

func TestChartLint(t *testing.T) {
	t.Parallel()
	result := action.NewLint().Run([]string{chart}, insecure)
	for _, err := range result.Errors {
		t.Error(err)
	}
	for _, m := range result.Messages {
		t.Log(m)
	}
	if result.TotalChartsLinted != 1 {
		t.Errorf("%d charts were linted", result.TotalChartsLinted)
	}
}
