{{/*
What values must hold together. Single values are the schema's. Each text says what is wrong and what to do.
*/}}
{{- define "jettison.checks" -}}
{{- $values := .Values -}}
{{- include "jettison.checkModels" . -}}
{{- include "jettison.checkTargets" . -}}
{{- include "jettison.checkEngines" . -}}
{{- include "jettison.checkDriver" . -}}
{{- include "jettison.checkExperiment" . -}}
{{- if and $values.autoscaling.enabled (eq $values.workload.kind "DaemonSet") -}}
{{- fail "autoscaling: a DaemonSet has one pod on each node. Set workload.kind to Deployment, or autoscaling.enabled to false" -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (gt (int $values.autoscaling.minReplicas) (int $values.autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling: expected minReplicas of at most maxReplicas %d, found %d. Lower it" (int $values.autoscaling.maxReplicas) (int $values.autoscaling.minReplicas)) -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (eq $values.autoscaling.engine "keda") (empty $values.autoscaling.prometheusAddress) -}}
{{- fail "autoscaling.prometheusAddress: KEDA asks Prometheus itself. Set its address, as http://prometheus.monitoring:9090" -}}
{{- end -}}
{{- if and $values.route.enabled (empty $values.route.parentRefs) -}}
{{- fail "route.parentRefs: a route needs a gateway. Set [{name: GATEWAY, namespace: NAMESPACE}]" -}}
{{- end -}}
{{- if and (eq $values.model.control "explicit") (not $values.server.restrictedApi.enabled) -}}
{{- fail "model.control: in mode explicit whoever reaches the API can run code. Set server.restrictedApi.enabled to true, or model.control to none" -}}
{{- end -}}
{{- if and (eq $values.gpu.mode "dra") (not (include "jettison.since" (dict "root" . "version" "1.32"))) -}}
{{- fail (printf "gpu.mode: resource claims are there from Kubernetes 1.32 on, found %s. Set gpu.mode to plugin" (include "jettison.kubeVersion" .)) -}}
{{- end -}}
{{- end -}}

{{/* Stops with one text where a value is empty. */}}
{{- define "jettison.need" -}}
{{- if empty .value }}{{ fail (printf "%s: expected a value, found none. %s" .name .fix) }}{{ end -}}
{{- end -}}

{{- define "jettison.checkModels" -}}
{{- $root := . -}}
{{- $source := .Values.model.source -}}
{{- $verify := .Values.model.verify -}}
{{- $type := $source.type -}}
{{- if has $type (list "image" "oci") -}}
{{- include "jettison.need" (dict "name" (printf "model.source.%s.repository" $type) "value" (index $source $type "repository") "fix" "Name the image or artifact with your models, or choose another model.source.type") -}}
{{- end -}}
{{- if eq $type "pvc" -}}
{{- include "jettison.need" (dict "name" "model.source.pvc.claimName" "value" $source.pvc.claimName "fix" "Name the claim of the volume with your models") -}}
{{- else if eq $type "hostPath" -}}
{{- include "jettison.need" (dict "name" "model.source.hostPath.path" "value" $source.hostPath.path "fix" "Name the nodes' folder with your models") -}}
{{- else if eq $type "s3" -}}
{{- include "jettison.need" (dict "name" "model.source.s3.uri" "value" $source.s3.uri "fix" "Name the folder, as s3://bucket/folder") -}}
{{- end -}}
{{- if has $type (list "s3" "oci") -}}
{{- include "jettison.need" (dict "name" "model.source.fetcher.repository" "value" $source.fetcher.repository "fix" "Name an image with aws (s3) or oras (oci)") -}}
{{- include "jettison.needVersion" (dict "name" "model.source.fetcher" "image" $source.fetcher) -}}
{{- end -}}
{{- range (include "jettison.variants" . | fromJson).names -}}
{{- $variant := index $root.Values.variants . -}}
{{- if or (has $type (list "image" "oci")) $verify.sha256 -}}
{{- include "jettison.need" (dict "name" (printf "variants.%s.digest" .) "value" $variant.digest "fix" "Set it to sha256:... (docs/deploying.md, Digests)") -}}
{{- end -}}
{{- if eq $type "s3" -}}
{{- include "jettison.need" (dict "name" (printf "variants.%s.path" .) "value" $variant.path "fix" "Name the archive under model.source.s3.uri") -}}
{{- end -}}
{{- end -}}
{{- if and (eq $type "image") (eq $source.image.mode "volume") (not (include "jettison.since" (dict "root" . "version" "1.33"))) -}}
{{- fail (printf "model.source.image.mode: image volumes with a folder are there from Kubernetes 1.33 on, found %s. Set it to copy" (include "jettison.kubeVersion" .)) -}}
{{- end -}}
{{- if $verify.cosign.enabled -}}
{{- if not (has $type (list "image" "oci")) -}}
{{- fail (printf "model.verify.cosign: signatures are of images and artifacts, found model.source.type %s. Set it to image or oci, or model.verify.cosign.enabled to false" $type) -}}
{{- end -}}
{{- include "jettison.need" (dict "name" "model.verify.cosign.secretName" "value" $verify.cosign.secretName "fix" "Name the Secret with the public key cosign.pub") -}}
{{- end -}}
{{- end -}}

{{/* An image must have a tag or a digest. */}}
{{- define "jettison.needVersion" -}}
{{- if not (or .image.tag .image.digest) }}{{ fail (printf "%s: expected a tag or a digest, found none. Set %s.digest" .name .name) }}{{ end -}}
{{- end -}}

{{- define "jettison.checkTargets" -}}
{{- $root := . -}}
{{- $names := list -}}
{{- range .Values.targets -}}
{{- if has .name $names }}{{ fail (printf "targets: expected each name once, found %q twice. Rename one" .name) }}{{ end -}}
{{- $names = append $names .name -}}
{{- if and .image (not (hasKey $root.Values.imageVariants .image)) -}}
{{- fail (printf "targets: target %s has image %q, and imageVariants has %s. Correct one of them" .name .image (keys $root.Values.imageVariants | sortAlpha | join ", " | default "none")) -}}
{{- end -}}
{{- end -}}
{{- range $name, $image := .Values.imageVariants -}}
{{- include "jettison.needVersion" (dict "name" (printf "imageVariants.%s" $name) "image" $image) -}}
{{- end -}}
{{- include "jettison.needVersion" (dict "name" "image" "image" .Values.image) -}}
{{- end -}}

{{- define "jettison.checkEngines" -}}
{{- $engine := .Values.engine -}}
{{- if ne $engine.strategy "prebuilt" -}}
{{- include "jettison.need" (dict "name" "engine.image.repository" "value" $engine.image.repository "fix" "Name the image that builds: the Triton image that serves, with Jettison in it") -}}
{{- include "jettison.needVersion" (dict "name" "engine.image" "image" $engine.image) -}}
{{- include "jettison.need" (dict "name" (eq $engine.cache.type "pvc" | ternary "engine.cache.claimName" "engine.cache.path") "value" (eq $engine.cache.type "pvc" | ternary $engine.cache.claimName $engine.cache.path) "fix" "Say where built engines are kept") -}}
{{- if eq .Values.gpu.mode "none" }}{{ fail "engine.strategy: engines are built on a GPU, found gpu.mode none. Set engine.strategy to prebuilt" }}{{ end -}}
{{- if and (eq $engine.strategy "job") (eq $engine.cache.type "hostPath") -}}
{{- fail "engine.strategy: a Job builds on one node, and engine.cache.type hostPath is a folder of each. Set engine.strategy to onNode, or engine.cache.type to pvc" -}}
{{- end -}}
{{- if not (has (include "jettison.delivery" .) (list "volume" "claim")) -}}
{{- fail (printf "engine.strategy: engines are built from models in a volume, found model.source.type %s by %s. Use an image volume, pvc or hostPath" .Values.model.source.type (include "jettison.delivery" .)) -}}
{{- end -}}
{{- range .Values.targets -}}
{{- include "jettison.need" (dict "name" (printf "targets: compute of target %s" .name) "value" .compute "fix" "Set the compute capability to build for, as \"8.7\"") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "jettison.checkDriver" -}}
{{- $values := .Values -}}
{{- $driver := $values.rollout.driver -}}
{{- $daemon := eq $values.workload.kind "DaemonSet" -}}
{{- if and $daemon (has $driver (list "argo" "kserve")) -}}
{{- fail (printf "rollout.driver: %s knows no DaemonSets. Set it to flagger or none, or workload.kind to Deployment; a fleet of one-node clusters rolls out cluster by cluster (docs/deploying.md)" $driver) -}}
{{- end -}}
{{- if has $driver (list "argo" "flagger" "kserve") -}}
{{- if ne (len $values.targets) 1 -}}
{{- fail (printf "rollout.driver: %s moves one workload, found %d targets. Install the chart once for each target" $driver (len $values.targets)) -}}
{{- end -}}
{{- end -}}
{{- if and (has $driver (list "argo" "flagger")) $values.variants.candidate.enabled -}}
{{- fail (printf "variants.candidate.enabled: driver %s makes the candidate itself from the next variants.baseline.digest. Set it to false" $driver) -}}
{{- end -}}
{{- if and (has $driver (list "argo" "flagger")) (not $values.ab.enabled) -}}
{{- fail (printf "rollout.driver: %s asks the verdict service. Set ab.enabled to true" $driver) -}}
{{- end -}}
{{- $fewest := $values.autoscaling.enabled | ternary $values.autoscaling.minReplicas (default $values.workload.replicas (index $values.targets 0).replicas) -}}
{{- if and (eq $driver "argo") (not $values.rollout.argo.gatewayPlugin) (lt (int $fewest) 2) -}}
{{- fail (printf "rollout.driver: argo without a gateway shares traffic by pods, and of %d pod it can share nothing. Set workload.replicas (or autoscaling.minReplicas) to 2 or more, or rollout.argo.gatewayPlugin to true" (int $fewest)) -}}
{{- end -}}
{{- if and (eq $driver "flagger") $values.route.enabled (has "GRPCRoute" $values.route.kinds) -}}
{{- fail "route.kinds: Flagger knows no GRPCRoute. Set route.kinds to [HTTPRoute], or rollout.driver to argo" -}}
{{- end -}}
{{- if and (eq $driver "kserve") $values.route.enabled -}}
{{- fail "route.enabled: KServe makes its own routes. Set it to false" -}}
{{- end -}}
{{- if and (eq $driver "argo") $values.rollout.argo.gatewayPlugin (not $values.route.enabled) -}}
{{- fail "rollout.argo.gatewayPlugin: the plugin sets weights in routes. Set route.enabled to true" -}}
{{- end -}}
{{- if and (eq $driver "gateway") (not (and $values.route.enabled $values.variants.candidate.enabled)) -}}
{{- fail "rollout.driver: gateway weighs two workloads in a route. Set route.enabled and variants.candidate.enabled to true" -}}
{{- end -}}
{{- if and (eq $driver "kserve") $values.autoscaling.enabled -}}
{{- fail "autoscaling: KServe scales by itself. Set autoscaling.enabled to false" -}}
{{- end -}}
{{- if and (gt (int $values.route.candidateWeight) 0) (ne $driver "gateway") -}}
{{- fail "route.candidateWeight: weights are the driver's. Set rollout.driver to gateway, or the weight to 0" -}}
{{- end -}}
{{- if and (eq $driver "flagger") (empty $values.rollout.flagger.webhookToken) -}}
{{- fail "rollout.flagger.webhookToken: expected the token of ab.token, found none. Flagger knows no Secrets: set it here" -}}
{{- end -}}
{{- end -}}

{{- define "jettison.checkExperiment" -}}
{{- $ab := .Values.ab -}}
{{- if $ab.enabled -}}
{{- include "jettison.need" (dict "name" "toolsImage.repository" "value" .Values.toolsImage.repository "fix" "Name the image with Jettison") -}}
{{- include "jettison.needVersion" (dict "name" "toolsImage" "image" .Values.toolsImage) -}}
{{- include "jettison.need" (dict "name" "ab.token.secretName" "value" $ab.token.secretName "fix" "Make a Secret with a token (docs/deploying.md, Verdicts) and name it") -}}
{{- range $name := list "baseline" "candidate" -}}
{{- include "jettison.need" (dict "name" (printf "ab.digests.%s" $name) "value" (default (index $.Values.variants $name "digest") (index $ab.digests $name)) "fix" "Set it to the digest of the model file") -}}
{{- end -}}
{{- if and (eq $ab.unitKey "request") (not $ab.requestsAreIndependent) -}}
{{- fail "ab.unitKey: expected what is independent of the next one, found request. Name the clip, study or device-hour that requests belong to, or set ab.requestsAreIndependent to true" -}}
{{- end -}}
{{- if and $ab.signing.secretName (or $ab.counters.scrape $ab.counters.urls) -}}
{{- fail "ab.signing: metrics bear no signature, so that none of them would be counted. Set ab.counters.scrape to false and urls to [], and let nodes leave or send signed files; or leave ab.signing.secretName empty" -}}
{{- end -}}
{{- end -}}
{{- $pods := 0 -}}
{{- range .Values.targets }}{{ $pods = add $pods (int (default $.Values.workload.replicas .replicas)) }}{{ end -}}
{{- if and $ab.router.enabled (not $ab.router.podsCountApart) (eq .Values.workload.kind "Deployment") (gt $pods 1) -}}
{{- fail "ab.router: a router's node stands in its configuration, and two pods with one repository would count under one name. Publish a router whose node is $POD_NAME (jettison ab start --node '$POD_NAME') and set ab.router.podsCountApart to true, or set workload.replicas to 1" -}}
{{- end -}}
{{- end -}}
