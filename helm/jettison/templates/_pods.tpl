{{/* The pod of a server, and what all pods of the chart have in common. */}}

{{/* Security context of every pod: the restricted profile. */}}
{{- define "jettison.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int .Values.workload.user }}
runAsGroup: {{ int .Values.workload.user }}
fsGroup: {{ int .Values.workload.user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Security context of every container. */}}
{{- define "jettison.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What stands in every pod's spec. */}}
{{- define "jettison.podCommon" -}}
serviceAccountName: {{ include "jettison.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "jettison.podSecurity" . | nindent 2 }}
{{- end -}}

{{/* Where a target's pods go: the same for servers and for builders of engines. */}}
{{- define "jettison.placement" -}}
{{- $workload := .root.Values.workload -}}
{{- with $workload.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $workload.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with merge (dict) (default (dict) .target.nodeSelector) $workload.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat (default (list) .target.tolerations) $workload.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "jettison.affinity" . }}
affinity:
  {{- . | nindent 2 }}
{{- end }}
{{- with include "jettison.gpuClaims" .root }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Metadata and spec of a server's pod, as Deployment, DaemonSet and KServe take them. */}}
{{- define "jettison.podTemplate" -}}
metadata:
  labels:
    {{- include "jettison.podLabels" . | nindent 4 }}
  annotations:
    {{- include "jettison.podAnnotations" . | nindent 4 }}
spec:
  {{- include "jettison.podSpec" . | nindent 2 }}
{{- end -}}

{{- define "jettison.podLabels" -}}
{{ include "jettison.podSelector" . }}
{{- with merge (dict) .root.Values.workload.podLabels .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The scripts' digest restarts pods whose init containers would do something else. */}}
{{- define "jettison.podAnnotations" -}}
jettison.dev/scripts: {{ include "jettison.scripts" .root | sha256sum | trunc 16 }}
{{- with .root.Values.workload.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "jettison.podSpec" -}}
{{- $drain := .root.Values.drain -}}
{{ include "jettison.podCommon" .root }}
# The sum of what follows: preStop, tritonserver's own wait, and ten seconds to unload models.
terminationGracePeriodSeconds: {{ add $drain.preStopSeconds $drain.exitTimeoutSeconds 10 }}
{{- include "jettison.placement" . }}
{{- with include "jettison.initContainers" . }}
initContainers:
  {{- . | nindent 2 }}
{{- end }}
containers:
  - {{ include "jettison.server" . | indent 4 | trim }}
volumes:
  {{- include "jettison.volumes" . | nindent 2 }}
{{- end -}}

{{/* The container with tritonserver. KServe looks for its own name. */}}
{{- define "jettison.server" -}}
{{- $values := .root.Values -}}
{{- $image := include "jettison.targetImage" . | fromJson -}}
name: {{ eq $values.rollout.driver "kserve" | ternary "kserve-container" "server" }}
image: {{ include "jettison.image" $image }}
imagePullPolicy: {{ $image.pullPolicy }}
command: [tritonserver]
args:
  {{- include "jettison.serverArgs" . | nindent 2 }}
{{- with include "jettison.serverEnv" .root }}
env:
  {{- . | nindent 2 }}
{{- end }}
ports:
  - {name: http, containerPort: 8000, protocol: TCP}
  {{- if ne $values.rollout.driver "kserve" }}
  - {name: grpc, containerPort: 8001, protocol: TCP}
  - {name: metrics, containerPort: 8002, protocol: TCP}
  {{- end }}
resources:
  {{- include "jettison.gpuResources" (dict "root" .root "resources" $values.workload.resources) | nindent 2 }}
securityContext:
  {{- include "jettison.containerSecurity" .root | nindent 2 }}
{{ include "jettison.probes" .root }}
lifecycle:
  preStop:
    {{- include "jettison.preStop" .root | nindent 4 }}
volumeMounts:
  {{- include "jettison.serverMounts" . | nindent 2 }}
{{- end -}}

{{/* tritonserver's command line. Complete configurations are served as they are. */}}
{{- define "jettison.serverArgs" -}}
{{- $values := .root.Values -}}
- --model-repository={{ include "jettison.repositoryPath" . }}
- --model-control-mode={{ $values.model.control }}
- --disable-auto-complete-config
- --strict-readiness=true
- --exit-timeout-secs={{ int $values.drain.exitTimeoutSeconds }}
- --http-port=8000
- --grpc-port=8001
- --metrics-port=8002
{{- if $values.server.restrictedApi.enabled }}
- --http-restricted-api=model-repository,shared-memory,logging,trace:admin-key=$(JETTISON_ADMIN_KEY)
- --grpc-restricted-protocol=model-repository,shared-memory,logging,trace:admin-key=$(JETTISON_ADMIN_KEY)
{{- end }}
{{- with $values.server.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "jettison.serverEnv" -}}
{{- $restricted := .Values.server.restrictedApi -}}
{{- if $restricted.enabled }}
- name: JETTISON_ADMIN_KEY
  valueFrom:
    {{- if $restricted.secretName }}
    secretKeyRef: {name: {{ $restricted.secretName }}, key: {{ $restricted.secretKey }}}
    {{- else }}
    fieldRef: {fieldPath: metadata.uid}
    {{- end }}
{{- end }}
{{- if .Values.ab.router.enabled }}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}
{{- with .Values.server.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Probes. Alive is the server's word; started is that all models are loaded; ready is that of the critical
model, since the server says ready even where a model's process has died.
*/}}
{{- define "jettison.probes" -}}
{{- $probes := .Values.probes -}}
{{- $period := int $probes.startup.periodSeconds -}}
startupProbe:
  httpGet: {path: /v2/health/ready, port: http}
  periodSeconds: {{ $period }}
  timeoutSeconds: 5
  failureThreshold: {{ div (add (int $probes.startup.budgetSeconds) $period -1) $period }}
livenessProbe:
  httpGet: {path: /v2/health/live, port: http}
  {{- toYaml $probes.liveness | nindent 2 }}
readinessProbe:
  httpGet:
    path: {{ empty .Values.model.critical | ternary "/v2/health/ready" (printf "/v2/models/%s/ready" .Values.model.critical) }}
    port: http
  {{- toYaml $probes.readiness | nindent 2 }}
{{- end -}}

{{/* Serving goes on while Services and gateways forget the pod. */}}
{{- define "jettison.preStop" -}}
{{- $drain := .Values.drain -}}
{{- $auto := eq "true" (include "jettison.since" (dict "root" . "version" "1.30")) | ternary "sleep" "exec" -}}
{{- if eq (eq $drain.mode "auto" | ternary $auto $drain.mode) "sleep" -}}
sleep: {seconds: {{ int $drain.preStopSeconds }}}
{{- else -}}
exec: {command: [sleep, {{ $drain.preStopSeconds | toString | quote }}]}
{{- end -}}
{{- end -}}
