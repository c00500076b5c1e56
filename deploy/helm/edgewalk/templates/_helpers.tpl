{{- define "edgewalk.name" -}}
{{- printf "%s" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "edgewalk.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "edgewalk.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "edgewalk.checks" -}}
{{- if and (not .Values.tls.secretName) (not .Values.insecureListen) -}}
{{- fail "say how the control plane is reached: tls.secretName, or insecureListen=true for a network that is yours alone" -}}
{{- end -}}
{{- if and (gt (int .Values.controlplane.replicas) 1) (not .Values.controlplane.etcd.endpoints) -}}
{{- fail "controlplane.replicas > 1 needs controlplane.etcd.endpoints: the etcd inside the pod is one" -}}
{{- end -}}
{{- if and (gt (int .Values.controlplane.replicas) 1) (not .Values.controlplane.mediaUrl) -}}
{{- fail "controlplane.replicas > 1 needs controlplane.mediaUrl, one place that all of them reach" -}}
{{- end -}}
{{- end -}}

{{/* What no container of edgewalk needs, it cannot do. */}}
{{- define "edgewalk.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "edgewalk.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
