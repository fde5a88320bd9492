"""Strict schemas of the custom resources that the chart writes: exactly the fields that it uses.

Written by hand from the documentation of Argo Rollouts, Flagger, KServe 0.20, KEDA, Prometheus Operator and
the Gateway API 1.2, since no package has them as JSON schemas. An unknown field fails.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
DURATION: Schema = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
ANY: Schema = {"type": "object"}


def fields(properties: dict[str, Schema], *, need: str = "") -> Schema:
    """An object that has no other fields, and at least those in `need`."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": need.split(),
    }


def each(items: Schema) -> Schema:
    """A list that is not empty."""
    return {"type": "array", "minItems": 1, "items": items}


METADATA = fields({"name": TEXT, "labels": TEXTS, "annotations": TEXTS}, need="name labels")
REFERENCE = fields({"apiVersion": TEXT, "kind": TEXT, "name": TEXT}, need="kind name")
KEY = fields({"name": TEXT, "key": TEXT}, need="name key")
SELECTOR = fields({"matchLabels": TEXTS}, need="matchLabels")
PARENT = fields({"name": TEXT, "namespace": TEXT, "sectionName": TEXT, "port": COUNT}, need="name")
BACKEND = fields({"name": TEXT, "port": COUNT, "weight": {"type": "integer", "minimum": 0}}, need="name port")


def resource(spec: Schema) -> Schema:
    """A whole object."""
    return fields(
        {"apiVersion": TEXT, "kind": TEXT, "metadata": METADATA, "spec": spec}, need="metadata spec"
    )


def route(match: Schema) -> Schema:
    """A route of the Gateway API."""
    rule = fields({"matches": each(match), "backendRefs": each(BACKEND)}, need="backendRefs")
    return resource(
        fields(
            {"parentRefs": each(PARENT), "hostnames": each(TEXT), "rules": each(rule)},
            need="parentRefs rules",
        )
    )


_WEB = fields(
    {
        "url": TEXT,
        "timeoutSeconds": COUNT,
        "jsonPath": {"const": "{$}"},
        "headers": each(fields({"key": TEXT, "value": TEXT}, need="key value")),
    },
    need="url jsonPath headers",
)
_METRIC = fields(
    {
        "name": TEXT,
        "interval": DURATION,
        "count": {"type": "integer", "minimum": 1},
        "inconclusiveLimit": COUNT,
        "failureLimit": COUNT,
        "consecutiveSuccessLimit": COUNT,
        "consecutiveErrorLimit": COUNT,
        "successCondition": TEXT,
        "failureCondition": TEXT,
        "provider": fields({"web": _WEB}, need="web"),
    },
    need="name interval count successCondition failureCondition provider",
)
_ANALYSIS_TEMPLATE = fields(
    {
        "args": each(
            fields(
                {"name": TEXT, "valueFrom": fields({"secretKeyRef": KEY}, need="secretKeyRef")}, need="name"
            )
        ),
        "metrics": each(_METRIC),
    },
    need="metrics",
)
_STEP = {
    "oneOf": [
        fields({"setWeight": {"type": "integer", "minimum": 0, "maximum": 100}}, need="setWeight"),
        fields(
            {"analysis": fields({"templates": each(fields({"templateName": TEXT}, need="templateName"))})},
            need="analysis",
        ),
        fields({"pause": fields({"duration": DURATION}, need="duration")}, need="pause"),
    ]
}
_NAMES = each(fields({"name": TEXT}, need="name"))
_PLUGIN = fields({"namespace": TEXT, "httpRoutes": _NAMES, "grpcRoutes": _NAMES}, need="namespace")
_CANARY_STRATEGY = fields(
    {
        "stableService": TEXT,
        "canaryService": TEXT,
        "maxSurge": COUNT,
        "maxUnavailable": COUNT,
        "trafficRouting": fields({"plugins": fields({"argoproj-labs/gatewayAPI": _PLUGIN})}, need="plugins"),
        "steps": each(_STEP),
    },
    need="stableService canaryService steps",
)
_ROLLOUT = fields(
    {
        "replicas": COUNT,
        "revisionHistoryLimit": COUNT,
        "progressDeadlineSeconds": COUNT,
        "selector": SELECTOR,
        "workloadRef": fields(
            {
                "apiVersion": TEXT,
                "kind": {"const": "Deployment"},
                "name": TEXT,
                "scaleDown": {"enum": ["never", "onsuccess", "progressively"]},
            },
            need="apiVersion kind name",
        ),
        "strategy": fields({"canary": _CANARY_STRATEGY}, need="canary"),
    },
    need="selector workloadRef strategy",
)
_HOOKS = ["pre-rollout", "confirm-traffic-increase", "confirm-promotion", "rollback"]
_FLAGGER_ANALYSIS = fields(
    {
        "interval": DURATION,
        "threshold": COUNT,
        "stepWeights": each({"type": "integer", "minimum": 0, "maximum": 100}),
        "iterations": {"type": "integer", "minimum": 1},
        "metrics": each(
            fields(
                {
                    "name": TEXT,
                    "templateRef": fields({"name": TEXT}, need="name"),
                    "thresholdRange": fields({"min": {"type": "number"}}, need="min"),
                    "interval": DURATION,
                },
                need="name thresholdRange",
            )
        ),
        "webhooks": each(
            fields(
                {"name": TEXT, "type": {"enum": _HOOKS}, "url": TEXT, "timeout": DURATION, "metadata": TEXTS},
                need="name type url",
            )
        ),
    },
    need="interval threshold webhooks",
)
_FLAGGER_SERVICE = fields(
    {
        "name": TEXT,
        "port": COUNT,
        "targetPort": {"type": ["string", "integer"]},
        "portName": TEXT,
        "portDiscovery": {"type": "boolean"},
        "hosts": each(TEXT),
        "gatewayRefs": each(PARENT),
    },
    need="port",
)
_CANARY = fields(
    {
        "targetRef": REFERENCE,
        "autoscalerRef": REFERENCE,
        "progressDeadlineSeconds": COUNT,
        "provider": {"enum": ["gatewayapi:v1", "kubernetes"]},
        "service": _FLAGGER_SERVICE,
        "analysis": _FLAGGER_ANALYSIS,
    },
    need="targetRef service analysis",
)
_METRIC_TEMPLATE = fields(
    {
        "provider": fields({"type": {"const": "prometheus"}, "address": TEXT}, need="type address"),
        "query": TEXT,
    },
    need="provider query",
)
_POD_FIELDS = [
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "enableServiceLinks",
    "imagePullSecrets",
    "initContainers",
    "nodeSelector",
    "priorityClassName",
    "resourceClaims",
    "runtimeClassName",
    "securityContext",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "tolerations",
    "volumes",
]
"""Held to Kubernetes' own schema of a pod by the test."""
_PREDICTOR = fields(
    {"name": TEXT, "minReplicas": COUNT, "labels": TEXTS, "annotations": TEXTS}
    | {key: {} for key in _POD_FIELDS},
    need="name containers",
)
_CANARIES = each(
    fields({"trafficPercent": {"type": "integer", "minimum": 0, "maximum": 100}, "predictor": _PREDICTOR})
)
_INFERENCE_SERVICE = fields({"predictor": _PREDICTOR, "canary": _CANARIES}, need="predictor")
_SCALED_OBJECT = fields(
    {
        "scaleTargetRef": REFERENCE,
        "minReplicaCount": COUNT,
        "maxReplicaCount": COUNT,
        "cooldownPeriod": COUNT,
        "triggers": each(
            fields(
                {
                    "type": {"const": "prometheus"},
                    "metricType": {"enum": ["Value", "AverageValue"]},
                    "metadata": fields(
                        {"serverAddress": TEXT, "query": TEXT, "threshold": TEXT},
                        need="serverAddress query threshold",
                    ),
                },
                need="type metadata",
            )
        ),
    },
    need="scaleTargetRef triggers",
)
_SERVICE_MONITOR = fields(
    {
        "selector": SELECTOR,
        "podTargetLabels": each(TEXT),
        "endpoints": each(
            fields(
                {
                    "port": TEXT,
                    "interval": DURATION,
                    "authorization": fields({"type": TEXT, "credentials": KEY}, need="credentials"),
                },
                need="port",
            )
        ),
    },
    need="selector endpoints",
)
_RULE = {
    "oneOf": [
        fields({"record": TEXT, "expr": TEXT, "labels": TEXTS}, need="record expr"),
        fields(
            {"alert": TEXT, "expr": TEXT, "for": DURATION, "labels": TEXTS, "annotations": TEXTS},
            need="alert expr",
        ),
    ]
}
_PROMETHEUS_RULE = fields(
    {"groups": each(fields({"name": TEXT, "rules": each(_RULE)}, need="name rules"))}, need="groups"
)
_PATH = fields({"path": fields({"type": {"const": "PathPrefix"}, "value": TEXT}, need="value")})
_METHOD = fields({"method": fields({"type": {"const": "Exact"}, "service": TEXT, "method": TEXT})})

CUSTOM: dict[tuple[str, str], Schema] = {
    ("argoproj.io/v1alpha1", "AnalysisTemplate"): resource(_ANALYSIS_TEMPLATE),
    ("argoproj.io/v1alpha1", "Rollout"): resource(_ROLLOUT),
    ("flagger.app/v1beta1", "Canary"): resource(_CANARY),
    ("flagger.app/v1beta1", "MetricTemplate"): resource(_METRIC_TEMPLATE),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): route(_PATH),
    ("gateway.networking.k8s.io/v1", "GRPCRoute"): route(_METHOD),
    ("keda.sh/v1alpha1", "ScaledObject"): resource(_SCALED_OBJECT),
    ("monitoring.coreos.com/v1", "PrometheusRule"): resource(_PROMETHEUS_RULE),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): resource(_SERVICE_MONITOR),
    ("serving.kserve.io/v1beta1", "InferenceService"): resource(_INFERENCE_SERVICE),
}
"""By API version and kind."""
