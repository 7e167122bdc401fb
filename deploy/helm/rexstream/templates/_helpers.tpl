{{- /* Labels of everything. The argument of these templates is a list of the root and a component: worker, model, topics. */ -}}
{{- define "rexstream.selector" -}}
app.kubernetes.io/name: rexstream
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "rexstream.metadata" -}}
name: {{ (index . 0).Release.Name }}-{{ index . 1 }}
namespace: {{ (index . 0).Release.Namespace }}
labels:
  {{- include "rexstream.selector" . | nindent 2 }}
  app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
{{- end }}

{{- define "rexstream.image" -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end }}

{{- /* What every pod has for Pod Security "restricted"; the argument is the user's number. */ -}}
{{- define "rexstream.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ . }}
  runAsGroup: {{ . }}
  fsGroup: {{ . }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "rexstream.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* The worker's configuration, as YAML. */ -}}
{{- define "rexstream.config" -}}
{{- $own := dict "model" (dict "target" (printf "dns:///%s-model:8500" .Release.Name)) -}}
{{- mergeOverwrite $own (deepCopy .Values.config) | toYaml -}}
{{- end }}

{{- /* The same without what running workers read again: a change of it is no roll-out. */ -}}
{{- define "rexstream.startConfig" -}}
{{- $config := deepCopy .Values.config -}}
{{- with dig "model" "canary" dict $config -}}
  {{- $_ := unset . "share" -}}
  {{- $_ = unset . "slower" -}}
{{- end -}}
{{- include "rexstream.config" (dict "Release" .Release "Values" (dict "config" $config)) -}}
{{- end }}

{{- /* Input topics without patterns, as a JSON list. */ -}}
{{- define "rexstream.inputs" -}}
{{- $inputs := .Values.autoscaling.worker.topics -}}
{{- if not $inputs -}}
  {{- range .Values.config.routes -}}
    {{- if hasPrefix "^" .input -}}
      {{- fail (printf "autoscaling.worker.topics: name the topics that %s matches; KEDA asks for the lag by name" .input) -}}
    {{- end -}}
    {{- $inputs = append $inputs .input -}}
  {{- end -}}
{{- end -}}
{{- $inputs | uniq | toJson -}}
{{- end }}

{{- /* PromQL matchers of this release's workers: the namespace and job that the PodMonitor gives them. */ -}}
{{- define "rexstream.workers" -}}
namespace="{{ .Release.Namespace }}",job="{{ .Release.Namespace }}/{{ .Release.Name }}-worker"
{{- end }}

{{- /* Not empty where KEDA scales the workers. */ -}}
{{- define "rexstream.scaled" -}}
{{- and .Values.autoscaling.enabled (eq .Values.worker.kind "Deployment") | ternary "yes" "" -}}
{{- end }}

{{- /* Role and name of each topic, a line each. */ -}}
{{- define "rexstream.topics" -}}
{{- range .Values.config.routes }}
{{- if not (hasPrefix "^" .input) }}
input {{ .input }}
{{- end }}
{{- $output := .output | default "reviews.extracted" }}
{{- if contains "{task}" $output }}
output {{ $output | replace ".{task}" "" }}
{{- range .tasks }}
output {{ $output | replace "{task}" . }}
{{- end }}
{{- else }}
output {{ $output }}
{{- end }}
{{- end }}
dead {{ dig "delivery" "dead_letter_topic" "reviews.dead" .Values.config }}
{{- end -}}

{{- define "rexstream.dns" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end -}}
