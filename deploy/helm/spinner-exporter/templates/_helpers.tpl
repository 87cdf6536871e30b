{{- define "spinner-exporter.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "spinner-exporter.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "spinner-exporter.labels" -}}
{{ include "spinner-exporter.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* Whether each replica has a name of its own that stays: to keep its volume, or to be asked for its projects. */ -}}
{{- define "spinner-exporter.named" -}}
{{- if or .Values.persistence.enabled .Values.scrapeConfig.enabled }}yes{{ end }}
{{- end }}

{{- /* The config as the exporter gets it: projects are read when they are probed where each is a target of its own. */ -}}
{{- define "spinner-exporter.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if .Values.scrapeConfig.enabled }}
{{- $config = mergeOverwrite $config (dict "projects" (mergeOverwrite (dict) (default dict $config.projects) (dict "on_probe" true))) }}
{{- end }}
{{- toYaml $config }}
{{- end }}
