{{/* How models and engines come into a server's pod: volumes, mounts, init containers. */}}

{{/* How models arrive: volume, copy, claim, s3 or oci. */}}
{{- define "jettison.delivery" -}}
{{- $source := .Values.model.source -}}
{{- if eq $source.type "image" -}}
{{- $auto := eq "true" (include "jettison.since" (dict "root" . "version" "1.35")) | ternary "volume" "copy" -}}
{{- eq $source.image.mode "auto" | ternary $auto $source.image.mode -}}
{{- else if has $source.type (list "pvc" "hostPath") -}}
claim
{{- else -}}
{{- $source.type -}}
{{- end -}}
{{- end -}}

{{/* Image or artifact of a variant's models, by digest. */}}
{{- define "jettison.modelReference" -}}
{{- $source := .root.Values.model.source -}}
{{- printf "%s@%s" (index $source $source.type "repository") (index .root.Values.variants .variant "digest") -}}
{{- end -}}

{{/* The model repository that tritonserver reads. */}}
{{- define "jettison.repositoryPath" -}}
{{- $paths := include "jettison.paths" .root | fromYaml -}}
{{- if eq .root.Values.engine.strategy "prebuilt" -}}
{{ $paths.models }}
{{- else -}}
{{ $paths.engines }}/{{ include "jettison.engineFolder" . }}
{{- end -}}
{{- end -}}

{{/* Volumes of a server's pod. */}}
{{- define "jettison.volumes" -}}
{{- $values := .root.Values -}}
- {name: tmp, emptyDir: {sizeLimit: {{ $values.workload.temporarySpace }}}}
- {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ $values.workload.sharedMemory }}}}
- name: scripts
  configMap: {name: {{ include "jettison.fullname" .root }}-scripts, defaultMode: 0555}
{{ include "jettison.modelVolumes" . }}
{{- if ne $values.engine.strategy "prebuilt" }}
- name: engines
  persistentVolumeClaim:
    claimName: {{ include "jettison.engineClaim" .root }}
{{- end }}
{{- if $values.ab.router.enabled }}
- name: router
  configMap: {name: {{ include "jettison.fullname" .root }}-router}
{{- if $values.ab.router.hostPath }}
- name: counters
  persistentVolumeClaim: {claimName: {{ include "jettison.fullname" .root }}-counters}
{{- else }}
- {name: counters, emptyDir: {sizeLimit: 1Gi}}
{{- end }}
{{- end }}
{{- end -}}

{{/* Volumes of the models alone: builders of engines read them too. */}}
{{- define "jettison.modelVolumes" -}}
{{- $source := .root.Values.model.source -}}
{{- $delivery := include "jettison.delivery" .root -}}
{{- if eq $delivery "volume" -}}
- name: models
  image: {reference: {{ include "jettison.modelReference" . | quote }}, pullPolicy: IfNotPresent}
{{- else if eq $delivery "claim" -}}
- name: models
  persistentVolumeClaim:
    claimName: {{ eq $source.type "pvc" | ternary $source.pvc.claimName (printf "%s-models" (include "jettison.fullname" .root)) }}
    readOnly: true
{{- else -}}
- {name: models, emptyDir: {sizeLimit: {{ $source.size }}}}
{{- end }}
{{- if has $delivery (list "s3" "oci") }}
- {name: download, emptyDir: {sizeLimit: {{ $source.size }}}}
{{- end }}
{{- if and (eq $source.type "oci") $source.oci.secretName }}
- name: registry
  secret:
    secretName: {{ $source.oci.secretName }}
    items: [{key: .dockerconfigjson, path: config.json}]
{{- end }}
{{- if .root.Values.model.verify.cosign.enabled }}
- name: cosign
  secret: {secretName: {{ .root.Values.model.verify.cosign.secretName }}}
{{- end }}
{{- end -}}

{{/* Mount of the models, read-only. */}}
{{- define "jettison.modelMount" -}}
{{- $source := .root.Values.model.source -}}
{{- $delivery := include "jettison.delivery" .root -}}
- name: models
  mountPath: {{ (include "jettison.paths" .root | fromYaml).models }}
  readOnly: true
  {{- if eq $delivery "volume" }}
  {{- with trimPrefix "/" $source.image.path }}
  subPath: {{ . | quote }}
  {{- end }}
  {{- else if eq $delivery "claim" }}
  {{- with index .root.Values.variants .variant "path" }}
  subPath: {{ . | quote }}
  {{- end }}
  {{- end }}
{{- end -}}

{{/* Mounts of the server. */}}
{{- define "jettison.serverMounts" -}}
{{- $paths := include "jettison.paths" .root | fromYaml -}}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{ include "jettison.modelMount" . }}
{{- if ne .root.Values.engine.strategy "prebuilt" }}
- {name: engines, mountPath: {{ $paths.engines }}, readOnly: true}
{{- end }}
{{- if .root.Values.ab.router.enabled }}
- {name: router, mountPath: {{ $paths.router }}, readOnly: true}
- {name: counters, mountPath: {{ $paths.counters }}}
{{- end }}
{{- end -}}

{{/* Claim of the engines' cache. */}}
{{- define "jettison.engineClaim" -}}
{{- $cache := .Values.engine.cache -}}
{{- eq $cache.type "pvc" | ternary $cache.claimName (printf "%s-engines" (include "jettison.fullname" .)) -}}
{{- end -}}

{{/* Folders of nodes that pods use, as JSON: {"volumes": [{name, path, readOnly}]}. */}}
{{- define "jettison.hostVolumes" -}}
{{- $volumes := list -}}
{{- if eq .Values.model.source.type "hostPath" -}}
{{- $volumes = append $volumes (dict "name" "models" "path" .Values.model.source.hostPath.path "readOnly" true) -}}
{{- end -}}
{{- if and (ne .Values.engine.strategy "prebuilt") (eq .Values.engine.cache.type "hostPath") -}}
{{- $volumes = append $volumes (dict "name" "engines" "path" .Values.engine.cache.path "readOnly" false) -}}
{{- end -}}
{{- if and .Values.ab.router.enabled .Values.ab.router.hostPath -}}
{{- $volumes = append $volumes (dict "name" "counters" "path" .Values.ab.router.hostPath "readOnly" false) -}}
{{- end -}}
{{- toJson (dict "volumes" $volumes) -}}
{{- end -}}

{{/* All that must have happened before tritonserver starts, in this order. */}}
{{- define "jettison.initContainers" -}}
{{- include "jettison.fetchContainers" . }}
{{- include "jettison.engineContainers" . }}
{{- end -}}

{{/* Models fetched and proven. */}}
{{- define "jettison.fetchContainers" -}}
{{- $verify := .root.Values.model.verify -}}
{{- $delivery := include "jettison.delivery" .root -}}
{{- if $verify.cosign.enabled }}
{{ include "jettison.signatureContainer" . }}
{{- end }}
{{- if eq $delivery "copy" }}
{{ include "jettison.copyContainer" . }}
{{- else if has $delivery (list "s3" "oci") }}
{{ include "jettison.downloadContainer" . }}
{{ include "jettison.scriptContainer" (merge (dict "name" "unpack-models" "script" "unpack-models.sh") .) }}
{{- else if and (eq $delivery "claim") $verify.sha256 }}
{{ include "jettison.scriptContainer" (merge (dict "name" "verify-models" "script" "verify-models.sh") .) }}
{{- end }}
{{- end -}}

{{/* Engines there, and of this node's GPU. */}}
{{- define "jettison.engineContainers" -}}
{{- $values := .root.Values -}}
{{- if eq $values.engine.strategy "job" }}
{{ include "jettison.scriptContainer" (merge (dict "name" "await-engines" "script" "await-engines.sh") .) }}
{{- else if eq $values.engine.strategy "onNode" }}
- {{ include "jettison.builder" . | indent 2 | trim }}
{{- end }}
{{- if and .target.compute (ne $values.gpu.mode "none") }}
{{ include "jettison.scriptContainer" (merge (dict "name" "check-gpu" "script" "check_gpu.py" "gpu" true) .) }}
{{- end }}
{{- end -}}

{{/* A script of the chart in the server's image, which has sh, coreutils, tar and python3. */}}
{{- define "jettison.scriptContainer" -}}
{{- $values := .root.Values -}}
{{- $paths := include "jettison.paths" .root | fromYaml -}}
{{- $image := include "jettison.targetImage" . | fromJson -}}
{{- $small := dict "requests" (dict "cpu" "100m" "memory" "128Mi") "limits" (dict "memory" "1Gi") -}}
{{- $delivery := include "jettison.delivery" .root -}}
- name: {{ .name }}
  image: {{ include "jettison.image" $image }}
  imagePullPolicy: {{ $image.pullPolicy }}
  command: [{{ hasSuffix ".py" .script | ternary "python3" "sh" }}, {{ $paths.scripts }}/{{ .script }}]
  env:
    - {name: MODELS, value: {{ $paths.models }}}
    - {name: DIGEST, value: {{ index $values.variants .variant "digest" | quote }}}
    - {name: CHECK_SHA256, value: {{ and $values.model.verify.sha256 (ne $delivery "oci") | toString | quote }}}
    - {name: TARGET, value: {{ .target.name | quote }}}
    - {name: COMPUTE, value: {{ default "" .target.compute | quote }}}
    - {name: ON_MISMATCH, value: {{ $values.engine.onMismatch }}}
    - {name: REPOSITORY, value: {{ include "jettison.repositoryPath" . }}}
    - {name: TIMEOUT_S, value: {{ int $values.engine.buildTimeoutSeconds | toString | quote }}}
  resources:
    {{- if .gpu }}
    {{- include "jettison.gpuResources" (dict "root" .root "resources" $small) | nindent 4 }}
    {{- else }}
    {{- toYaml $small | nindent 4 }}
    {{- end }}
  securityContext:
    {{- include "jettison.containerSecurity" .root | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: scripts, mountPath: {{ $paths.scripts }}, readOnly: true}
    {{- if has $delivery (list "s3" "oci") }}
    - {name: models, mountPath: {{ $paths.models }}}
    - {name: download, mountPath: /download, readOnly: true}
    {{- else }}
    {{- include "jettison.modelMount" . | nindent 4 }}
    {{- end }}
    {{- if ne $values.engine.strategy "prebuilt" }}
    - {name: engines, mountPath: {{ $paths.engines }}, readOnly: true}
    {{- end }}
{{- end -}}

{{/* The image's own repository, copied by its own `cp`: where image volumes are not yet. */}}
{{- define "jettison.copyContainer" -}}
- name: copy-models
  image: {{ include "jettison.modelReference" . | quote }}
  imagePullPolicy: IfNotPresent
  command: [cp, -R, {{ printf "%s/." (trimSuffix "/" .root.Values.model.source.image.path) | quote }}, /copy/]
  resources:
    requests: {cpu: 100m, memory: 64Mi}
    limits: {memory: 1Gi}
  securityContext:
    {{- include "jettison.containerSecurity" .root | nindent 4 }}
  volumeMounts:
    - {name: models, mountPath: /copy}
{{- end -}}

{{/* One archive into /download. */}}
{{- define "jettison.downloadContainer" -}}
{{- $source := .root.Values.model.source -}}
- name: fetch-models
  image: {{ include "jettison.image" $source.fetcher }}
  imagePullPolicy: {{ $source.fetcher.pullPolicy }}
  {{- if eq $source.type "s3" }}
  command:
    - aws
    - s3
    - cp
    - {{ printf "%s/%s" (trimSuffix "/" $source.s3.uri) (index .root.Values.variants .variant "path") | quote }}
    - /download/models.tar
    - --only-show-errors
    {{- with $source.s3.endpoint }}
    - --endpoint-url={{ . }}
    {{- end }}
    {{- if not $source.s3.secretName }}
    - --no-sign-request
    {{- end }}
  env:
    - {name: HOME, value: /tmp}
    - {name: AWS_REGION, value: {{ $source.s3.region | quote }}}
  {{- with $source.s3.secretName }}
  envFrom:
    - secretRef: {name: {{ . }}}
  {{- end }}
  {{- else }}
  command: [oras, pull, --output=/download, {{ include "jettison.modelReference" . | quote }}]
  env:
    - {name: HOME, value: /tmp}
    {{- if $source.oci.secretName }}
    - {name: DOCKER_CONFIG, value: /etc/jettison/registry}
    {{- end }}
  {{- end }}
  resources:
    requests: {cpu: 100m, memory: 128Mi}
    limits: {memory: 1Gi}
  securityContext:
    {{- include "jettison.containerSecurity" .root | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: download, mountPath: /download}
    {{- if and (eq $source.type "oci") $source.oci.secretName }}
    - {name: registry, mountPath: /etc/jettison/registry, readOnly: true}
    {{- end }}
{{- end -}}

{{/* The signature of an image or artifact, before anything of it is used. */}}
{{- define "jettison.signatureContainer" -}}
{{- $cosign := .root.Values.model.verify.cosign -}}
- name: verify-signature
  image: {{ include "jettison.image" $cosign.image }}
  imagePullPolicy: {{ $cosign.image.pullPolicy }}
  args:
    - verify
    - --key=/etc/jettison/cosign/cosign.pub
    {{- if not $cosign.transparencyLog }}
    - --insecure-ignore-tlog=true
    {{- end }}
    - {{ include "jettison.modelReference" . | quote }}
  env:
    - {name: HOME, value: /tmp}
    {{- if and (eq .root.Values.model.source.type "oci") .root.Values.model.source.oci.secretName }}
    - {name: DOCKER_CONFIG, value: /etc/jettison/registry}
    {{- end }}
  resources:
    requests: {cpu: 100m, memory: 128Mi}
    limits: {memory: 512Mi}
  securityContext:
    {{- include "jettison.containerSecurity" .root | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: cosign, mountPath: /etc/jettison/cosign, readOnly: true}
    {{- if and (eq .root.Values.model.source.type "oci") .root.Values.model.source.oci.secretName }}
    - {name: registry, mountPath: /etc/jettison/registry, readOnly: true}
    {{- end }}
{{- end -}}

{{/* The container that builds engines, in a Job or before the server. */}}
{{- define "jettison.builder" -}}
{{- $values := .root.Values -}}
{{- $paths := include "jettison.paths" .root | fromYaml -}}
name: build-engines
image: {{ include "jettison.image" $values.engine.image }}
imagePullPolicy: {{ $values.engine.image.pullPolicy }}
command:
  {{- include "jettison.buildCommand" . | nindent 2 }}
env:
  - {name: HOME, value: /tmp}
resources:
  {{- include "jettison.gpuResources" (dict "root" .root "resources" $values.workload.resources) | nindent 2 }}
securityContext:
  {{- include "jettison.containerSecurity" .root | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- include "jettison.modelMount" . | nindent 2 }}
  - {name: engines, mountPath: {{ $paths.engines }}}
{{- end -}}
