"""The matrix of values: a base for each way of delivery, and what is varied on it."""

from __future__ import annotations

from typing import Any, NamedTuple

from chart_render import merged

A, B = (f"sha256:{digit * 64}" for digit in "ab")
IMAGE: dict[str, Any] = {
    "model": {"source": {"image": {"repository": "registry.example/models"}}, "names": ["fashion"]},
    "variants": {"baseline": {"digest": A}, "candidate": {"digest": B}},
}
CPU = {"gpu": {"mode": "none"}}
PVC = {"model": {"source": {"type": "pvc", "pvc": {"claimName": "models"}}}}
HOST = {"model": {"source": {"type": "hostPath", "hostPath": {"path": "/srv/models"}}}}
FETCHER = {"repository": "registry.example/fetcher", "digest": A}
S3 = {
    "model": {"source": {"type": "s3", "s3": {"uri": "s3://fleet/models"}, "fetcher": FETCHER}},
    "variants": {"baseline": {"path": "july.tar"}, "candidate": {"path": "august.tar"}},
}
OCI = {
    "model": {"source": {"type": "oci", "oci": {"repository": "registry.example/models"}, "fetcher": FETCHER}}
}
COSIGN = {"model": {"verify": {"cosign": {"enabled": True, "secretName": "cosign"}}}}
DAEMON = {"workload": {"kind": "DaemonSet"}}
CANDIDATE = {"variants": {"candidate": {"enabled": True}}}
ROUTE = {"route": {"enabled": True, "parentRefs": [{"name": "edge", "namespace": "gateways"}]}}
AB: dict[str, Any] = {
    "toolsImage": {"repository": "registry.example/jettison", "digest": A},
    "ab": {"enabled": True, "token": {"secretName": "verdict"}, "plannedDisagreement": 0.04, "margin": 0.01},
}
BUILD = {
    "targets": [{"name": "l4", "compute": "8.9"}],
    "engine": {
        "strategy": "job",
        "image": {"repository": "registry.example/builder", "digest": A},
        "cache": {"claimName": "engines"},
    },
}
FLEET = {
    "imageVariants": {"igpu": {"repository": "nvcr.io/nvidia/tritonserver", "tag": "26.02-py3-igpu"}},
    "targets": [
        {"name": "orin", "arch": "arm64", "compute": "8.7", "image": "igpu"},
        {"name": "l4", "arch": "amd64", "compute": "8.9", "minMemoryMiB": 20000, "replicas": 2},
    ],
}


class Case(NamedTuple):
    """Values, and the first Kubernetes on which the chart takes them."""

    values: dict[str, Any]
    since: int = 29


def _case(*layers: dict[str, Any], since: int = 29) -> Case:
    return Case(merged(IMAGE, *layers), since)


def driver(name: str, **settings: Any) -> dict[str, Any]:
    """The values of a rollout driver."""
    return {"rollout": {"driver": name, **settings}}


ARGO = driver("argo") | {"workload": {"replicas": 4}}
FLAGGER = driver("flagger", flagger={"webhookToken": "0123456789abcdef"})

CASES: dict[str, Case] = {
    "image": _case(),
    "image volume": _case({"model": {"source": {"image": {"mode": "volume"}}}}, since=33),
    "image copied": _case({"model": {"source": {"image": {"mode": "copy", "path": "/repository/"}}}}),
    "image signed": _case(COSIGN),
    "image signed, no log": _case(COSIGN, {"model": {"verify": {"cosign": {"transparencyLog": False}}}}),
    "pvc": _case(PVC),
    "pvc, folders": _case(
        PVC, CANDIDATE, {"variants": {"baseline": {"path": "a"}, "candidate": {"path": "b"}}}
    ),
    "pvc unverified": _case(
        PVC, {"model": {"verify": {"sha256": False}}, "variants": {"baseline": {"digest": ""}}}
    ),
    "hostPath": _case(HOST),
    "hostPath on all nodes": _case(HOST, DAEMON),
    "s3": _case(S3),
    "s3 with credentials": _case(
        S3, {"model": {"source": {"s3": {"endpoint": "https://minio.local", "secretName": "s3"}}}}
    ),
    "s3 unverified": _case(S3, {"model": {"verify": {"sha256": False}}}),
    "oci": _case(OCI),
    "oci signed": _case(OCI, COSIGN, {"model": {"source": {"oci": {"secretName": "registry"}}}}),
    "cpu": _case(CPU),
    "mig": _case({"gpu": {"mode": "mig", "resourceName": "nvidia.com/mig-1g.10gb"}}),
    "dra": _case({"gpu": {"mode": "dra", "count": 2}}, since=32),
    "any node": _case({"gpu": {"affinity": False, "featureLabels": False}}, FLEET),
    "fleet": _case(FLEET),
    "fleet on all nodes": _case(FLEET, DAEMON, HOST, {"workload": {"runtimeClassName": "nvidia"}}),
    "fleet with candidate": _case(FLEET, CANDIDATE),
    "engine job": _case(PVC, BUILD),
    "engine on the node": _case(
        PVC, BUILD, {"engine": {"strategy": "onNode", "cache": {"type": "hostPath", "path": "/srv/engines"}}}
    ),
    "plans elsewhere warned": _case(
        {"targets": [{"name": "t", "compute": "8.6"}], "engine": {"onMismatch": "warn"}}
    ),
    "hpa": _case({"autoscaling": {"enabled": True}}),
    "keda": _case(
        {"autoscaling": {"enabled": True, "engine": "keda", "prometheusAddress": "http://prom:9090"}}
    ),
    "no budget": _case(
        {"podDisruptionBudget": {"enabled": False}, "serviceAccount": {"create": False, "name": "mine"}}
    ),
    "routes": _case(ROUTE, {"route": {"hostnames": ["models.example"], "grpcHostnames": ["grpc.example"]}}),
    "gateway": _case(ROUTE, CANDIDATE, driver("gateway"), {"route": {"candidateWeight": 25}}),
    "monitoring": _case(
        {
            "monitoring": {
                "serviceMonitor": {"enabled": True, "labels": {"release": "prom"}},
                "rules": {"enabled": True},
                "dashboard": {"enabled": True},
            }
        },
        AB,
    ),
    "closed to named peers": _case(
        {
            "networkPolicy": {
                "inferenceFrom": [{"namespaceSelector": {"matchLabels": {"name": "gateways"}}}],
                "metricsFrom": [],
                "fetchFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            }
        },
        S3,
    ),
    "open": _case({"networkPolicy": {"enabled": False}, "server": {"restrictedApi": {"enabled": False}}}),
    "experiment": _case(AB),
    "experiment with guards": _case(
        AB,
        {
            "ab": {
                "maxUnits": 10278,
                "guards": [
                    {"type": "latency", "limitMs": 50, "quantile": 0.99, "provenQuantile": 0.98},
                    {"type": "slice", "name": "pedestrian", "margin": 0.02, "proof": True},
                ],
            }
        },
    ),
    "experiment from files": _case(
        AB,
        {"ab": {"counters": {"scrape": False, "claimName": "counters"}, "signing": {"secretName": "fleet"}}},
    ),
    "experiment with state": _case(
        AB, {"ab": {"state": {"claimName": "kept"}, "counters": {"urls": ["http://n:8002/metrics"]}}}
    ),
    "a/a": _case(AB, {"ab": {"isAA": True, "digests": {"candidate": A}}}),
    "router": _case(AB, {"ab": {"router": {"enabled": True}}}),
    "router of several pods": _case(
        AB, {"ab": {"router": {"enabled": True, "podsCountApart": True}}, "workload": {"replicas": 2}}
    ),
    "router on all nodes": _case(
        AB,
        DAEMON,
        HOST,
        {
            "ab": {
                "mode": "split",
                "router": {
                    "enabled": True,
                    "experiment": "0" * 32,
                    "weight": 2500,
                    "salt": "s1",
                    "hostPath": "/var/lib/jettison",
                },
            }
        },
    ),
    "argo": _case(AB, ARGO),
    "argo with gateway": _case(AB, ROUTE, driver("argo", argo={"gatewayPlugin": True})),
    "argo with hpa": _case(AB, driver("argo"), {"autoscaling": {"enabled": True, "minReplicas": 2}}),
    "flagger": _case(AB, FLAGGER),
    "flagger with gateway": _case(
        AB,
        ROUTE,
        FLAGGER,
        {"route": {"kinds": ["HTTPRoute"]}},
        {"rollout": {"flagger": {"prometheusAddress": "http://prom:9090"}}, "autoscaling": {"enabled": True}},
    ),
    "flagger with daemon": _case(AB, FLAGGER, DAEMON),
    "kserve": _case(driver("kserve")),
    "kserve with canary": _case(CANDIDATE, driver("kserve"), CPU),
    "explicit": _case(
        {"model": {"control": "explicit"}, "server": {"restrictedApi": {"secretName": "admin"}}}
    ),
    "named": _case(
        {
            "fullnameOverride": "models",
            "commonLabels": {"team": "vision"},
            "imagePullSecrets": [{"name": "registry"}],
            "workload": {
                "podLabels": {"a": "b"},
                "podAnnotations": {"c": "d"},
                "priorityClassName": "high",
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "nodeSelector": {"pool": "gpu"},
            },
        }
    ),
    "drained by the image": _case(
        {"drain": {"mode": "exec"}, "model": {"critical": "fashion"}, "tests": {"enabled": False}}
    ),
}
"""Each is rendered for all versions of Kubernetes from `since` on."""
