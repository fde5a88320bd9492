{{/* Which nodes a target's pods go to, and how they get a GPU there. */}}

{{/*
Affinity of a target. Three labels show that a node has an NVIDIA GPU, each set by another tool: node feature
discovery by the PCI vendor, the same by the processor of a Tegra (Jetson), and the GPU operator. Each is a
term, and terms are alternatives; what the target asks for is in all of them.
`gpu.product` is not used: MIG and time slicing rewrite it.
*/}}
{{- define "jettison.affinity" -}}
{{- $asked := include "jettison.nodeExpressions" . | fromYamlArray -}}
{{- $shows := list (dict) -}}
{{- if and .root.Values.gpu.affinity (ne .root.Values.gpu.mode "none") -}}
{{- $shows = list
      (dict "key" "feature.node.kubernetes.io/pci-10de.present" "operator" "In" "values" (list "true"))
      (dict "key" "feature.node.kubernetes.io/cpu-model.vendor_id" "operator" "In" "values" (list "NVIDIA"))
      (dict "key" "nvidia.com/gpu.present" "operator" "In" "values" (list "true")) -}}
{{- end -}}
{{- $terms := list -}}
{{- range $shows -}}
{{- $expressions := empty . | ternary $asked (prepend $asked .) -}}
{{- if $expressions }}{{- $terms = append $terms (dict "matchExpressions" $expressions) }}{{- end -}}
{{- end -}}
{{- if $terms -}}
nodeAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      {{- toYaml $terms | nindent 6 }}
{{- end -}}
{{- end -}}

{{/* What a target asks of its nodes, as a YAML list of expressions. */}}
{{- define "jettison.nodeExpressions" -}}
{{- $labels := and .root.Values.gpu.featureLabels (ne .root.Values.gpu.mode "none") -}}
{{- $all := list -}}
{{- with .target.arch -}}
{{- $all = append $all (dict "key" "kubernetes.io/arch" "operator" "In" "values" (list .)) -}}
{{- end -}}
{{- if and $labels .target.compute -}}
{{- $parts := splitList "." .target.compute -}}
{{- range $index, $name := list "major" "minor" -}}
{{- $key := printf "nvidia.com/gpu.compute.%s" $name -}}
{{- $all = append $all (dict "key" $key "operator" "In" "values" (list (index $parts $index))) -}}
{{- end -}}
{{- end -}}
{{- if and $labels .target.minMemoryMiB -}}
{{- $least := sub (int .target.minMemoryMiB) 1 | toString -}}
{{- $all = append $all (dict "key" "nvidia.com/gpu.memory" "operator" "Gt" "values" (list $least)) -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* Resources of a container that uses the GPU. */}}
{{- define "jettison.gpuResources" -}}
{{- $gpu := .root.Values.gpu -}}
{{- $resources := deepCopy .resources -}}
{{- if has $gpu.mode (list "plugin" "mig") -}}
{{- $limits := merge (dict $gpu.resourceName (int $gpu.count)) (default (dict) $resources.limits) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- else if eq $gpu.mode "dra" -}}
{{- $_ := set $resources "claims" (list (dict "name" "gpu")) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* The pod's claims, for mode dra. */}}
{{- define "jettison.gpuClaims" -}}
{{- if eq .Values.gpu.mode "dra" -}}
resourceClaims:
  - name: gpu
    resourceClaimTemplateName: {{ include "jettison.fullname" . }}-gpu
{{- end -}}
{{- end -}}
