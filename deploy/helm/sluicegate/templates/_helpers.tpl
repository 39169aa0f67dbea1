{{- /* Names and labels. */ -}}
{{- define "sluicegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "sluicegate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "sluicegate.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "sluicegate.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sluicegate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sluicegate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sluicegate.labels" -}}
{{ include "sluicegate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "sluicegate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sluicegate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "sluicegate.image" -}}
{{- $repository := required "image.repository is needed: push an image built with deploy/docker/Dockerfile" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* A setting: what values say, or else the worker's default as it is given here. Arguments: root, name, default. */ -}}
{{- define "sluicegate.setting" -}}
{{- get .root.Values.settings .name | default .default -}}
{{- end -}}

{{- /* The worker's own defaults that rules below need; a test compares them with `sluicegate run --help`. */ -}}
{{- define "sluicegate.drainTimeout" -}}{{ include "sluicegate.setting" (dict "root" . "name" "drain_timeout" "default" "25s") }}{{- end -}}
{{- define "sluicegate.bufferBytes" -}}{{ include "sluicegate.setting" (dict "root" . "name" "buffer_bytes" "default" "128MiB") }}{{- end -}}
{{- define "sluicegate.failoverTime" -}}{{ include "sluicegate.setting" (dict "root" . "name" "failover_time" "default" "10s") }}{{- end -}}
{{- define "sluicegate.maxBatchAge" -}}{{ include "sluicegate.setting" (dict "root" . "name" "max_batch_age" "default" "20s") }}{{- end -}}

{{- /* Whole seconds, rounded up, of a duration such as 500ms, 25s, 2m or 1h: the forms that the schema lets through. */ -}}
{{- define "sluicegate.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{- div (add $number 999) 1000 -}}
{{- else if eq $unit "s" -}}{{- $number -}}
{{- else if eq $unit "m" -}}{{- mul $number 60 -}}
{{- else -}}{{- mul $number 3600 -}}
{{- end -}}
{{- end -}}

{{- /* Mebibytes, rounded up, of 128MiB, 1GiB, 64KiB (settings) or 512Mi, 1Gi (resources). */ -}}
{{- define "sluicegate.mebibytes" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[KMG]" . -}}
{{- if eq $unit "K" -}}{{- div (add $number 1023) 1024 -}}
{{- else if eq $unit "M" -}}{{- $number -}}
{{- else -}}{{- mul $number 1024 -}}
{{- end -}}
{{- end -}}

{{- /* Seconds between SIGTERM and SIGKILL: what a drain may take, and a margin. */ -}}
{{- define "sluicegate.gracePeriod" -}}
{{- $drain := include "sluicegate.seconds" (include "sluicegate.drainTimeout" .) | int64 -}}
{{- if .Values.stop.gracePeriodSeconds -}}
{{- if lt (.Values.stop.gracePeriodSeconds | int64) (add $drain 5) -}}
{{- fail (printf "stop.gracePeriodSeconds is %d, and settings.drain_timeout takes up to %d: give %d or more, or leave it out" (.Values.stop.gracePeriodSeconds | int64) $drain (add $drain 5)) -}}
{{- end -}}
{{- .Values.stop.gracePeriodSeconds | int64 -}}
{{- else -}}
{{- max 30 (add $drain (.Values.stop.marginSeconds | int64)) -}}
{{- end -}}
{{- end -}}

{{- /* An address with a port, as a URL has it. Arguments: host, root. */ -}}
{{- define "sluicegate.hostPort" -}}
{{- if eq .root.Values.admin.ipFamily "IPv6" -}}[{{ .host }}]:{{ .root.Values.admin.port }}
{{- else -}}{{ .host }}:{{ .root.Values.admin.port }}
{{- end -}}
{{- end -}}

{{- /* Whether to render what needs a CRD: "true" or nothing. Arguments: root, mode, api, name. */ -}}
{{- define "sluicegate.renders" -}}
{{- if or (eq .mode "alwaysRender") (.root.Capabilities.APIVersions.Has .api) -}}true
{{- else if eq .mode "failIfMissing" -}}
{{- fail (printf "%s needs %s, which this cluster does not have (renderMode is failIfMissing)" .name .api) -}}
{{- end -}}
{{- end -}}

{{- /* What Prometheus knows this fleet by. Rules and dashboard tell fleets apart by it. */ -}}
{{- define "sluicegate.job" -}}
{{- printf "%s/%s" .Release.Namespace (include "sluicegate.fullname" .) -}}
{{- end -}}

{{- /* Rules between values, which a schema cannot say. Each names the values and what to do. */ -}}
{{- define "sluicegate.check" -}}
{{- $_ := required "stream is needed: the stream to read, by name or ARN" .Values.stream -}}
{{- $_ := required "application is needed: what the workers of the fleet share" .Values.application -}}
{{- if and (eq .Values.aws.identity "irsa") (not .Values.aws.roleArn) -}}
{{- fail "aws.identity is irsa: give the role in aws.roleArn" -}}
{{- end -}}
{{- if and (ne .Values.aws.identity "irsa") .Values.aws.roleArn -}}
{{- fail (printf "aws.roleArn is for irsa, and aws.identity is %s: a Pod Identity association names the role by itself" .Values.aws.identity) -}}
{{- end -}}
{{- $memory := include "sluicegate.mebibytes" .Values.resources.limits.memory | int64 -}}
{{- /* docs/batching.md: 64 MiB, 2.5 x buffer_bytes, and 64 KiB for each shard; a tenth to spare. In tenths of a MiB. */ -}}
{{- $buffer := include "sluicegate.mebibytes" (include "sluicegate.bufferBytes" .) | int64 -}}
{{- $shards := get .Values.settings "max_leases_per_worker" | default 100 | int64 -}}
{{- $resident := add 640 (mul 25 $buffer) (div (add (mul 10 $shards) 15) 16) -}}
{{- $needed := div (add (mul 11 $resident) 99) 100 -}}
{{- if lt $memory $needed -}}
{{- fail (printf "resources.limits.memory is %dMi: settings.buffer_bytes of %d MiB and %d shards need %dMi (docs/batching.md)" $memory $buffer $shards $needed) -}}
{{- end -}}
{{- if ne (include "sluicegate.mebibytes" .Values.resources.requests.memory | int64) $memory -}}
{{- fail "resources.requests.memory and resources.limits.memory differ: a worker fills what it is given, so give both alike" -}}
{{- end -}}
{{- /* Rules and scaling ask which workers' heartbeats rose within a minute: two scrapes, and a heartbeat between them. */ -}}
{{- if and .Values.podMonitor.enabled (gt (include "sluicegate.seconds" .Values.podMonitor.interval | int64) 30) -}}
{{- fail (printf "podMonitor.interval is %s: the rules look at one minute and need two scrapes in it, so give 30s or less" .Values.podMonitor.interval) -}}
{{- end -}}
{{- if and (or .Values.prometheusRule.enabled (eq .Values.autoscaling.mode "keda")) (gt (include "sluicegate.seconds" (include "sluicegate.failoverTime" .) | int64) 90) -}}
{{- fail (printf "settings.failover_time is %s: a worker beats each third of it, and prometheusRule and autoscaling.mode keda look for a beat within half a minute, so give 90s or less, or do without both" (include "sluicegate.failoverTime" .)) -}}
{{- end -}}
{{- if eq .Values.autoscaling.mode "keda" -}}
{{- $_ := required "autoscaling.prometheus.serverAddress is needed with autoscaling.mode keda" .Values.autoscaling.prometheus.serverAddress -}}
{{- if lt (.Values.autoscaling.maxReplicas | int64) (.Values.autoscaling.minReplicas | int64) -}}
{{- fail (printf "autoscaling.maxReplicas is %d, below autoscaling.minReplicas (%d)" (.Values.autoscaling.maxReplicas | int64) (.Values.autoscaling.minReplicas | int64)) -}}
{{- end -}}
{{- $age := include "sluicegate.seconds" (include "sluicegate.maxBatchAge" .) | int64 -}}
{{- if lt (.Values.autoscaling.freshnessTargetSeconds | int64) (mul 2 $age) -}}
{{- fail (printf "autoscaling.freshnessTargetSeconds is %d: batches wait up to settings.max_batch_age (%d s) in a fleet at rest, so give %d or more" (.Values.autoscaling.freshnessTargetSeconds | int64) $age (mul 2 $age)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
