{{- define "spinner-exporter.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
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

{{- /*
The kind and name of the workload. Kubernetes does not allow to change the volumes of a StatefulSet, so each shape has a
name of its own: an upgrade from one to another then replaces the workload.
*/ -}}
{{- define "spinner-exporter.kind" -}}
{{- or .Values.persistence.enabled .Values.scrapeConfig.enabled | ternary "StatefulSet" "Deployment" }}
{{- end }}

{{- define "spinner-exporter.workload" -}}
{{- include "spinner-exporter.name" . }}
{{- if .Values.scrapeConfig.enabled }}-probed{{ else if .Values.persistence.enabled }}-persistent{{ end }}
{{- end }}

{{- /* The address of a replica that has a stable name, by its number. */ -}}
{{- define "spinner-exporter.replica" -}}
{{- $name := include "spinner-exporter.name" .root -}}
{{ include "spinner-exporter.workload" .root }}-{{ .number }}.{{ $name }}-replicas.{{ .root.Release.Namespace }}.svc:10095
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
{{- /* The exporter refuses both keys, even if one of them is empty or null. */ -}}
{{- $config = omit $config (ternary "runtime" "runtimes" (not (empty $config.runtimes))) }}
{{- toYaml $config }}
{{- end }}

{{- /* The file with the token of the only runtime; empty if the config says where the token comes from. */ -}}
{{- define "spinner-exporter.token-file" -}}
{{- $runtime := default dict .Values.config.runtime }}
{{- $own := or .Values.config.runtimes $runtime.token_file (default dict $runtime.auth).login }}
{{- if and .Values.token.secretName .Values.token.key (not $own) }}/run/secrets/spinner-exporter/{{ .Values.token.key }}{{ end }}
{{- end }}

{{- /* The settings of each runtime, as a list below the key `list`. */ -}}
{{- define "spinner-exporter.runtimes" -}}
{{- dict "list" (.Values.config.runtimes | default (list (default dict .Values.config.runtime))) | toJson }}
{{- end }}

{{- /* The port of a URL: the one that it names, or that of its scheme. */ -}}
{{- define "spinner-exporter.port" -}}
{{- $url := urlParse . }}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- $port = $port | default (get (dict "http" "80" "https" "443" "socks5" "1080" "socks5h" "1080") (lower $url.scheme)) }}
{{- if or (not $port) (not $url.host) }}{{ fail (printf "config: expected a URL such as https://runtime.example.com; got %s" .) }}{{ end }}
{{- $port }}
{{- end }}

{{- /* How Prometheus authenticates, and what it trusts: keys of the Secret with the web config, unless set otherwise. */ -}}
{{- define "spinner-exporter.access" -}}
{{- $web := .root.Values.webConfig }}
{{- $secret := $web.secretName }}
{{- if .own.basicAuth }}
basicAuth: {{- toYaml .own.basicAuth | nindent 2 }}
{{- else if and $secret $web.usernameKey $web.passwordKey }}
basicAuth:
  username: {name: {{ $secret }}, key: {{ $web.usernameKey }}}
  password: {name: {{ $secret }}, key: {{ $web.passwordKey }}}
{{- end }}
{{- if .own.tlsConfig }}
tlsConfig: {{- toYaml .own.tlsConfig | nindent 2 }}
{{- else if and $secret $web.caKey }}
tlsConfig:
  ca: {secret: {name: {{ $secret }}, key: {{ $web.caKey }}}}
  serverName: {{ $web.serverName | default (printf "%s.%s.svc" (include "spinner-exporter.name" .root) .root.Release.Namespace) }}
{{- end }}
{{- end }}

{{- /*
Whether the kubelet can read a path over HTTPS, or over HTTP without a web config: it has no password and no client
certificate, which scrapes then have too.
*/ -}}
{{- define "spinner-exporter.readable" -}}
{{- $web := .Values.webConfig }}
{{- $users := and $web.usernameKey $web.passwordKey }}
{{- $certificates := false }}
{{- range list .Values.serviceMonitor.tlsConfig .Values.scrapeConfig.tlsConfig }}
{{- $tls := default dict . }}
{{- if or $tls.cert $tls.certFile }}{{ $certificates = true }}{{ end }}
{{- end }}
{{- if or (not $web.secretName) (and $web.caKey (not $users) (not $certificates)) }}yes{{ end }}
{{- end }}

{{- /* The scheme of the exporter's own endpoints, in lower case. */ -}}
{{- define "spinner-exporter.scheme" -}}
{{- $web := .root.Values.webConfig }}
{{- .own.scheme | default (and $web.secretName $web.caKey | empty | ternary "http" "https") | lower }}
{{- end }}
