{{/*
Names, labels, images, versions, and every word that the chart says to programs of Jettison.
Helpers that are about one target take a dict: root ($), target (an entry of .Values.targets), variant
("baseline" or "candidate").
*/}}

{{/* Prefix of all objects: 40 characters at most, so that suffixes fit into Kubernetes' 63. */}}
{{- define "jettison.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of one target's workload. */}}
{{- define "jettison.workload" -}}
{{- printf "%s-%s" (include "jettison.fullname" .root) .target.name -}}
{{- if eq .variant "candidate" }}-candidate{{ end -}}
{{- end -}}

{{- define "jettison.serviceAccount" -}}
{{- default (.Values.serviceAccount.create | ternary (include "jettison.fullname" .) "default") .Values.serviceAccount.name -}}
{{- end -}}

{{/* Labels that never change, by which objects of one release and component find each other. */}}
{{- define "jettison.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* All labels of an object. */}}
{{- define "jettison.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "jettison.selector" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Labels by which a target's workload finds its pods. `app` is different for each workload: Flagger tells the
pods of primary and canary apart by it.
*/}}
{{- define "jettison.podSelector" -}}
app: {{ include "jettison.workload" . | quote }}
{{ include "jettison.selector" (dict "root" .root "component" "server") }}
jettison.dev/target: {{ .target.name | quote }}
jettison.dev/variant: {{ .variant }}
{{- end -}}

{{/* An image: the digest wins over the tag. */}}
{{- define "jettison.image" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end -}}

{{/* The image of a target: one of imageVariants, else the common one. As JSON, for fromJson. */}}
{{- define "jettison.targetImage" -}}
{{- $named := index .root.Values.imageVariants (default "" .target.image) -}}
{{- toJson (merge (dict) (default (dict) $named) (dict "pullPolicy" "IfNotPresent")
      (ternary .root.Values.image (dict) (empty $named))) -}}
{{- end -}}

{{/* The cluster's version, or the one that the values say it has. */}}
{{- define "jettison.kubeVersion" -}}
{{- default .Capabilities.KubeVersion.Version .Values.kubeVersion -}}
{{- end -}}

{{/* "true" from Kubernetes `version` on: include "jettison.since" (dict "root" $ "version" "1.30"). */}}
{{- define "jettison.since" -}}
{{- if semverCompare (printf ">=%s.0-0" .version) (include "jettison.kubeVersion" .root) }}true{{ end -}}
{{- end -}}

{{/* "true" where a second workload serves the candidate: drivers argo and flagger make their own. */}}
{{- define "jettison.hasCandidate" -}}
{{- if and .Values.variants.candidate.enabled (not (has .Values.rollout.driver (list "argo" "flagger"))) }}true{{ end -}}
{{- end -}}

{{/* The variants that run, as JSON: {"names": [...]}. */}}
{{- define "jettison.variants" -}}
{{- toJson (dict "names" (ternary (list "baseline" "candidate") (list "baseline")
      (eq "true" (include "jettison.hasCandidate" .)))) -}}
{{- end -}}

{{/* "true" where the chart itself makes workloads of this kind. */}}
{{- define "jettison.makes" -}}
{{- if and (eq .root.Values.workload.kind .kind) (ne .root.Values.rollout.driver "kserve") }}true{{ end -}}
{{- end -}}

{{/* Mean milliseconds that requests waited in each pod whose name matches `pods`. */}}
{{- define "jettison.queueTimeQuery" -}}
{{- $pods := printf "{namespace=%q, pod=~%q}" .root.Release.Namespace .pods -}}
sum by (pod) (rate(nv_inference_queue_duration_us{{ $pods }}[1m])) / clamp_min(sum by (pod) (rate(nv_inference_request_success{{ $pods }}[1m])), 1e-9) / 1000
{{- end -}}

{{/* ---- What programs of Jettison are told. All their words stand here and nowhere else. ---- */}}

{{/* Paths inside containers. */}}
{{- define "jettison.paths" -}}
models: /models
engines: /engines
scripts: /etc/jettison/scripts
router: /etc/jettison/router
experiments: /etc/jettison/experiments
token: /etc/jettison/token
signing: /etc/jettison/signing
counters: /var/lib/jettison/counters
state: /var/lib/jettison/state
{{- end -}}

{{- define "jettison.verdictName" -}}
{{ include "jettison.fullname" . }}-verdict
{{- end -}}

{{- define "jettison.verdictPort" -}}8080{{- end -}}

{{/* Host and port of the verdict service inside the cluster. */}}
{{- define "jettison.verdictUrl" -}}
http://{{ include "jettison.verdictName" . }}.{{ .Release.Namespace }}.svc:{{ include "jettison.verdictPort" . }}
{{- end -}}

{{/* Where the verdict on the chart's experiment is read. */}}
{{- define "jettison.verdictPath" -}}
/v1/experiments/{{ .Values.ab.name }}/verdict
{{- end -}}

{{/* Command line of the verdict service, as a YAML list. */}}
{{- define "jettison.verdictCommand" -}}
{{- $paths := include "jettison.paths" . | fromYaml -}}
- jettison
- ab
- serve
- --experiment={{ $paths.experiments }}
- --state={{ $paths.state }}
- --host=0.0.0.0
- --port={{ include "jettison.verdictPort" . }}
- --token={{ $paths.token }}/{{ .Values.ab.token.secretKey }}
{{- if .Values.ab.signing.secretName }}
- --key={{ $paths.signing }}/{{ .Values.ab.signing.secretKey }}
{{- end }}
{{- if .Values.ab.counters.claimName }}
- --counters={{ $paths.counters }}
{{- end }}
{{- if .Values.ab.counters.scrape }}
- --scrape=http://{{ include "jettison.fullname" . }}-metrics:8002/metrics
{{- end }}
{{- range .Values.ab.counters.urls }}
- --scrape={{ . }}
{{- end }}
{{- end -}}

{{/* Settings of the experiment, in the form that `jettison ab` reads. */}}
{{- define "jettison.experiment" -}}
{{- $ab := .Values.ab -}}
{{- $errors := false -}}
{{- $slices := list -}}
name: {{ $ab.name | quote }}
baseline: {{ default .Values.variants.baseline.digest $ab.digests.baseline }}
candidate: {{ default .Values.variants.candidate.digest $ab.digests.candidate }}
data_source: {{ $ab.dataSource | quote }}
unit: {{ $ab.unitKey | quote }}
{{- if $ab.requestsAreIndependent }}
requests_are_independent: true
{{- end }}
margin: {{ $ab.margin }}
planned_disagreement: {{ $ab.plannedDisagreement }}
alpha: {{ $ab.alpha }}
evidence: {{ $ab.evidence }}
min_units: {{ int $ab.minUnits }}
{{- if $ab.maxUnits }}
max_units: {{ int $ab.maxUnits }}
{{- end }}
max_loss: {{ $ab.maxLoss }}
is_aa: {{ $ab.isAA }}
{{- range $ab.guards }}
{{- if eq .type "latency" }}
latency:
  limit_ms: {{ .limitMs }}
  quantile: {{ .quantile }}
  {{- with .provenQuantile }}
  proven_quantile: {{ . }}
  {{- end }}
{{- else if eq .type "errors" }}
{{- $errors = true }}
{{- else }}
{{- $slices = append $slices . }}
{{- end }}
{{- end }}
guard_errors: {{ $errors }}
{{- with $slices }}
slices:
{{- range . }}
  - name: {{ .name | quote }}
    margin: {{ .margin }}
    {{- with .plannedDisagreement }}
    planned_disagreement: {{ . }}
    {{- end }}
    proof: {{ default false .proof }}
{{- end }}
{{- end }}
{{- end -}}

{{/* State file of the router: what `jettison_router` reads each time that it changes. */}}
{{- define "jettison.routerState" -}}
{{- $router := .Values.ab.router -}}
{{- $mode := empty $router.experiment | ternary "off" .Values.ab.mode -}}
{{- toPrettyJson (dict "format" "jettison-router/1" "mode" $mode "weight" (int $router.weight)
      "experiment" $router.experiment "salt" $router.salt) -}}
{{- end -}}

{{/* Command line that builds a target's engines, as a YAML list. */}}
{{- define "jettison.buildCommand" -}}
{{- $paths := include "jettison.paths" .root | fromYaml -}}
- jettison
- build
- {{ $paths.models }}
- --target=sm{{ default "" .target.compute | replace "." "" }}
- --output={{ $paths.engines }}/{{ include "jettison.engineFolder" . }}
- --time-budget={{ int .root.Values.engine.buildTimeoutSeconds }}
{{- end -}}

{{/*
Folder of a target's engines in the cache: another model, capability or builder is another folder. A plan
works only with the TensorRT that built it, and that one is part of the builder's image.
*/}}
{{- define "jettison.engineFolder" -}}
{{- $digest := index .root.Values.variants .variant "digest" -}}
{{- $key := printf "%s %s %s" $digest (default "" .target.compute) (include "jettison.image" .root.Values.engine.image) -}}
{{ .target.name }}-{{ sha256sum $key | trunc 16 }}
{{- end -}}
