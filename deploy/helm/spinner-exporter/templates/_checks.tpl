{{- /* Fails if the values contradict each other or what is installed, and says what to do. */ -}}
{{- define "spinner-exporter.checks" -}}
{{- $runtime := default dict .Values.config.runtime }}
{{- if not (or .Values.config.runtimes $runtime.base_url) }}
{{- fail "config.runtime.base_url: expected the URL of the runtime's API" }}
{{- end }}
{{- if not .Values.image.repository }}
{{- fail "image.repository: expected the name of an image that the cluster can pull, such as ghcr.io/OWNER/spinner-exporter" }}
{{- end }}
{{- if and .Values.config.runtimes $runtime }}
{{- fail "config.runtime: expected either runtime or runtimes, not both" }}
{{- end }}
{{- $used := or (include "spinner-exporter.token-file" .) (contains "/run/secrets/spinner-exporter/" (toJson .Values.config)) }}
{{- if and .Values.token.secretName (not $used) }}
{{- fail "token.secretName: the config does not use it; name a key in it, for example token_file: /run/secrets/spinner-exporter/KEY in an entry of runtimes" }}
{{- end }}
{{- if and .Values.persistence.enabled (include "spinner-exporter.probed" .) }}
{{- fail "persistence.enabled: expected false with scrapeConfig.enabled or projects.on_probe: what is probed is not saved" }}
{{- end }}
{{- if .Values.persistence.enabled }}
{{- include "spinner-exporter.checks.volume" . }}
{{- end }}
{{- include "spinner-exporter.checks.timeout" (dict "key" "serviceMonitor" "own" .Values.serviceMonitor) }}
{{- include "spinner-exporter.checks.timeout" (dict "key" "scrapeConfig" "own" .Values.scrapeConfig) }}
{{- end }}

{{- /* The Prometheus operator ignores an object with such a timeout, so that nothing would be scraped. */ -}}
{{- define "spinner-exporter.checks.timeout" -}}
{{- $known := and .own.enabled .own.interval .own.scrapeTimeout }}
{{- if and $known (gt (include "spinner-exporter.milliseconds" .own.scrapeTimeout | int64) (include "spinner-exporter.milliseconds" .own.interval | int64)) }}
{{- fail (printf "%s.scrapeTimeout: expected at most the interval, %s; got %s" .key .own.interval .own.scrapeTimeout) }}
{{- end }}
{{- end }}

{{- /* A duration such as 1m30s in milliseconds. */ -}}
{{- define "spinner-exporter.milliseconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 }}
{{- $sum := 0 }}
{{- range regexFindAll "[0-9]+(ms|[smhd])" (toString .) -1 }}
{{- $number := regexFind "^[0-9]+" . }}
{{- $sum = add $sum (mul (int64 $number) (get $units (trimPrefix $number .))) }}
{{- end }}
{{- $sum }}
{{- end }}

{{- /* Kubernetes does not allow to change the volumes of a StatefulSet, and does not say how to. */ -}}
{{- define "spinner-exporter.checks.volume" -}}
{{- $name := include "spinner-exporter.workload" . }}
{{- $there := lookup "apps/v1" "StatefulSet" .Release.Namespace $name }}
{{- range (default dict $there.spec).volumeClaimTemplates }}
{{- $size := .spec.resources.requests.storage }}
{{- $class := default "" .spec.storageClassName }}
{{- $what := printf "persistence: StatefulSet %s has volumes with size %s and storageClass %q, which Kubernetes does not change. Set these values, or" $name (toString $size) $class }}
{{- $in := $.Release.Namespace }}
{{- /* Kubernetes labels claims with the selector of their StatefulSet. */}}
{{- $claims := printf "app.kubernetes.io/name=%s,app.kubernetes.io/instance=%s" $.Chart.Name $.Release.Name }}
{{- if ne $class $.Values.persistence.storageClass }}
{{- fail (printf "%s lose the state: delete it (kubectl -n %s delete statefulset %s) and its claims, which would keep the old class (kubectl -n %s delete pvc -l %s), and upgrade again" $what $in $name $in $claims) }}
{{- else if ne (include "spinner-exporter.bytes" $size) (include "spinner-exporter.bytes" $.Values.persistence.size) }}
{{- fail (printf "%s delete it without its pods (kubectl -n %s delete statefulset %s --cascade=orphan), change the size of its claims (kubectl -n %s edit pvc -l %s) and upgrade again" $what $in $name $in $claims) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A quantity in bytes, because Kubernetes writes 1024Mi as 1Gi. */ -}}
{{- define "spinner-exporter.bytes" -}}
{{- $number := regexFind "^[0-9.]+" (toString .) }}
{{- $unit := trimPrefix $number (toString .) }}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "" 1 }}
{{- if and $number (hasKey $units $unit) }}{{ printf "%.0f" (mulf $number (get $units $unit)) }}{{ else }}{{ . }}{{ end }}
{{- end }}
