{{/* Parts that several objects beside the pods share. */}}

{{/* Files that init containers and tests run, as keys of a ConfigMap. */}}
{{- define "jettison.scripts" -}}
{{- range $path := list "verify-models.sh" "unpack-models.sh" "await-engines.sh" "check_gpu.py" "ask_server.py" "ask_verdict.py" }}
{{ $path }}: |
  {{- $.Files.Get (printf "files/%s" $path) | trim | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Seconds until an update counts as stuck: starting, building engines, and a minute to place the pod. */}}
{{- define "jettison.progressSeconds" -}}
{{- $build := eq .Values.engine.strategy "prebuilt" | ternary 0 .Values.engine.buildTimeoutSeconds -}}
{{- add .Values.probes.startup.budgetSeconds $build 60 -}}
{{- end -}}

{{/* What autoscalers scale: Argo's Rollout where there is one. */}}
{{- define "jettison.scaleTarget" -}}
{{- if eq .root.Values.rollout.driver "argo" -}}
apiVersion: argoproj.io/v1alpha1
kind: Rollout
{{- else -}}
apiVersion: apps/v1
kind: Deployment
{{- end }}
name: {{ include "jettison.workload" . }}
{{- end -}}

{{/* Backends of a route. Argo's plugin and driver gateway weigh them; else all goes to the baseline. */}}
{{- define "jettison.backends" -}}
{{- $values := .root.Values -}}
{{- $name := include "jettison.fullname" .root -}}
{{- if eq $values.rollout.driver "gateway" -}}
- {name: {{ $name }}, port: {{ .port }}, weight: {{ sub 100 (int $values.route.candidateWeight) }}}
- {name: {{ $name }}-candidate, port: {{ .port }}, weight: {{ int $values.route.candidateWeight }}}
{{- else if and (eq $values.rollout.driver "argo") $values.rollout.argo.gatewayPlugin -}}
- {name: {{ $name }}, port: {{ .port }}}
- {name: {{ $name }}-candidate, port: {{ .port }}}
{{- else -}}
- {name: {{ $name }}, port: {{ .port }}}
{{- end -}}
{{- end -}}

{{/* Egress to the cluster's name service. */}}
{{- define "jettison.dnsEgress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
{{- end -}}

{{/*
Name of a KServe predictor: of its models, not of its role. So a promotion names the Deployment that already
runs, and nothing restarts.
*/}}
{{- define "jettison.predictor" -}}
v{{ printf "%s %s" (index .root.Values.variants .variant "digest") (index .root.Values.variants .variant "path") | sha256sum | trunc 8 }}
{{- end -}}

{{/* A server's pod as the fields of a KServe predictor. */}}
{{- define "jettison.predictorPod" -}}
labels:
  {{- include "jettison.podLabels" . | nindent 2 }}
annotations:
  {{- include "jettison.podAnnotations" . | nindent 2 }}
{{ include "jettison.podSpec" . }}
{{- end -}}

{{/* A pod of `helm test` that runs the script ask_<name>.py. */}}
{{- define "jettison.testPod" -}}
{{- $paths := include "jettison.paths" .root | fromYaml -}}
{{- $image := include "jettison.targetImage" . | fromJson -}}
{{- $isVerdict := eq .name "verdict" -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "jettison.fullname" .root }}-test-{{ .name }}
  labels:
    {{- include "jettison.labels" (dict "root" .root "component" "test") | nindent 4 }}
  annotations:
    helm.sh/hook: test
    # It stays until the next test: `helm test --logs` reads it after it has ended.
    helm.sh/hook-delete-policy: before-hook-creation
spec:
  restartPolicy: Never
  activeDeadlineSeconds: {{ int .root.Values.tests.timeoutSeconds }}
  {{- include "jettison.podCommon" .root | nindent 2 }}
  {{- with .target.arch }}
  nodeSelector: {kubernetes.io/arch: {{ . }}}
  {{- end }}
  {{- with concat (default (list) .target.tolerations) .root.Values.workload.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: test
      image: {{ include "jettison.image" $image }}
      imagePullPolicy: {{ $image.pullPolicy }}
      command: [python3, {{ $paths.scripts }}/ask_{{ .name }}.py]
      env:
        - {name: URL, value: {{ .url | quote }}}
        {{- if $isVerdict }}
        - {name: TOKEN, value: {{ $paths.token }}/{{ .root.Values.ab.token.secretKey }}}
        {{- else }}
        - {name: NAMES, value: {{ join " " .root.Values.model.names | quote }}}
        {{- end }}
      resources:
        requests: {cpu: 100m, memory: 64Mi}
        limits: {memory: 512Mi}
      securityContext:
        {{- include "jettison.containerSecurity" .root | nindent 8 }}
      volumeMounts:
        - {name: scripts, mountPath: {{ $paths.scripts }}, readOnly: true}
        {{- if $isVerdict }}
        - {name: token, mountPath: {{ $paths.token }}, readOnly: true}
        {{- end }}
  volumes:
    - name: scripts
      configMap: {name: {{ include "jettison.fullname" .root }}-scripts}
    {{- if $isVerdict }}
    - name: token
      secret: {secretName: {{ .root.Values.ab.token.secretName }}}
    {{- end }}
{{- end -}}

{{/* The annotation of an alert that says where to read what to do: a link where the page's address is known. */}}
{{- define "jettison.runbook" -}}
{{- $section := printf "#%s" (lower .alert) -}}
{{- with .root.Values.monitoring.rules.runbookUrl -}}
runbook_url: {{ printf "%s%s" . $section | quote }}
{{- else -}}
runbook: {{ printf "docs/runbook.md%s" $section | quote }}
{{- end -}}
{{- end -}}
