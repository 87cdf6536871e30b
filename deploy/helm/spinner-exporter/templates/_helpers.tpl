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

{{- /* Whether each replica needs a stable name: for its own volume, or to be probed for its own projects. */ -}}
{{- define "spinner-exporter.named" -}}
{{- if or .Values.persistence.enabled .Values.scrapeConfig.enabled }}yes{{ end }}
{{- end }}

{{- /* Whether projects are read when they are probed: what is probed cannot be saved. */ -}}
{{- define "spinner-exporter.probed" -}}
{{- $probed := or .Values.scrapeConfig.enabled (default dict .Values.config.projects).on_probe }}
{{- range .Values.config.runtimes }}{{ $probed = or $probed (default dict .projects).on_probe }}{{ end }}
{{- if $probed }}yes{{ end }}
{{- end }}

{{- /* The exporter's config. With scrapeConfig each project is its own target, so it is read when it is probed. */ -}}
{{- define "spinner-exporter.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if .Values.scrapeConfig.enabled }}
{{- $config = mergeOverwrite $config (dict "projects" (mergeOverwrite (dict) (default dict $config.projects) (dict "on_probe" true))) }}
{{- end }}
{{- /* The default of runtime.base_url, which is empty. */ -}}
{{- if $config.runtimes }}{{ $config = omit $config "runtime" }}{{ end }}
{{- toYaml $config }}
{{- end }}
