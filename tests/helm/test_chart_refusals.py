"""Wrong values are refused before anything is sent, with the path of the value or with what to do."""

from __future__ import annotations

from typing import Any

import pytest
from chart_cases import AB, BUILD, CANDIDATE, COSIGN, DAEMON, FLAGGER, IMAGE, PVC, ROUTE, driver
from chart_render import Document, merged, refusal

GUARDS = {"ab": {"guards": [{"type": "latency", "quantile": 0.9}]}}

WRONG: list[tuple[Document, str, str]] = [
    ({"replicas": 3}, "at ''", "additional properties 'replicas' not allowed"),
    ({"gpu": {"mod": "mig"}}, "/gpu", "'mod' not allowed"),
    ({"gpu": {"mode": "cuda"}}, "/gpu/mode", "must be one of 'plugin', 'mig', 'dra', 'none'"),
    ({"gpu": {"count": 0}}, "/gpu/count", "minimum: got 0, want 1"),
    ({"gpu": {"resourceName": "gpu"}}, "/gpu/resourceName", "does not match"),
    ({"kubeVersion": "2.1"}, "/kubeVersion", "does not match"),
    ({"image": {"digest": "sha256:12"}}, "/image/digest", "does not match"),
    ({"image": {"repository": "https://nvcr.io/x"}}, "/image/repository", "does not match"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy", "must be one of"),
    ({"imageVariants": {"igpu": {"version": "1"}}}, "/imageVariants/igpu", "'version' not allowed"),
    ({"workload": {"kind": "StatefulSet"}}, "/workload/kind", "'Deployment', 'DaemonSet'"),
    ({"workload": {"replicas": "three"}}, "/workload/replicas", "got string, want integer"),
    ({"workload": {"user": 0}}, "/workload/user", "minimum: got 0, want 1"),
    ({"workload": {"sharedMemory": "1 GB"}}, "/workload/sharedMemory", "does not match"),
    ({"workload": {"resources": {"limit": {}}}}, "/workload/resources", "'limit' not allowed"),
    ({"server": {"extraArgs": ["log-verbose"]}}, "/server/extraArgs/0", "does not match"),
    ({"targets": []}, "/targets", "minItems"),
    ({"targets": [{"name": "Orin"}]}, "/targets/0/name", "does not match"),
    ({"targets": [{"name": "orin", "compute": 8.7}]}, "/targets/0/compute", "want string"),
    ({"targets": [{"name": "orin", "compute": "87"}]}, "/targets/0/compute", "does not match"),
    ({"targets": [{"arch": "arm64"}]}, "/targets/0", "missing property 'name'"),
    ({"variants": {"baseline": {"digest": "a" * 64}}}, "/variants/baseline/digest", "does not match"),
    ({"variants": {"baseline": {"path": "/abs"}}}, "/variants/baseline/path", "does not match"),
    ({"variants": {"treatment": {}}}, "/variants", "'treatment' not allowed"),
    ({"model": {"source": {"type": "nfs"}}}, "/model/source/type", "must be one of"),
    ({"model": {"control": "poll"}}, "/model/control", "must be one of 'none', 'explicit'"),
    ({"model": {"names": ["a", "a"]}}, "/model/names", "are equal"),
    ({"engine": {"cache": {"path": "cache"}}}, "/engine/cache/path", "does not match"),
    ({"drain": {"preStopSeconds": 0}}, "/drain/preStopSeconds", "minimum: got 0, want 1"),
    ({"probes": {"startup": {"budget": 900}}}, "/probes/startup", "'budget' not allowed"),
    ({"route": {"kinds": ["TCPRoute"]}}, "/route/kinds/0", "must be one of"),
    ({"route": {"candidateWeight": 101}}, "/route/candidateWeight", "maximum: got 101, want 100"),
    ({"networkPolicy": {"inferenceFrom": [{}]}}, "/networkPolicy/inferenceFrom/0", "minProperties"),
    ({"rollout": {"driver": "spinnaker"}}, "/rollout/driver", "must be one of"),
    ({"rollout": {"steps": [{"share": 10}]}}, "/rollout/steps/0", "missing property 'weight'"),
    ({"rollout": {"flagger": {"webhookToken": "short"}}}, "/rollout/flagger/webhookToken", "does not match"),
    ({"ab": {"margin": 1}}, "/ab/margin", "exclusiveMaximum: got 1, want 1"),
    ({"ab": {"alpha": 0}}, "/ab/alpha", "exclusiveMinimum: got 0, want 0"),
    (GUARDS, "/ab/guards/0", "missing property 'limitMs'"),
    ({"ab": {"router": {"experiment": "night"}}}, "/ab/router/experiment", "does not match"),
    (
        {"monitoring": {"serviceMonitor": {"interval": 15}}},
        "/monitoring/serviceMonitor/interval",
        "want string",
    ),
]


def test_at_least_thirty_wrong_values_are_tried():
    assert len(WRONG) >= 30


@pytest.mark.parametrize(("values", "path", "reason"), WRONG)
def test_the_schema_names_the_value_and_what_is_wrong(values, path, reason):
    text = refusal(merged(IMAGE, values))
    (line,) = [line for line in text.splitlines() if reason in line]
    assert path in line
    assert "templates/" not in text  # it is the schema that speaks, and no template


CONTRADICTIONS: dict[str, tuple[Document, str]] = {
    "no models": (
        {"model": {"source": {"image": {"repository": ""}}}},
        "model.source.image.repository: expected a value",
    ),
    "no digest": (
        {"variants": {"baseline": {"digest": ""}}},
        "variants.baseline.digest: expected a value, found none. Set it to",
    ),
    "candidate without digest": (
        merged(CANDIDATE, {"variants": {"candidate": {"digest": ""}}}),
        "variants.candidate.digest",
    ),
    "claim without name": (
        merged(PVC, {"model": {"source": {"pvc": {"claimName": ""}}}}),
        "Name the claim of the volume",
    ),
    "image volume too early": (
        {"kubeVersion": "1.32", "model": {"source": {"image": {"mode": "volume"}}}},
        "from Kubernetes 1.33 on, found 1.32. Set it to copy",
    ),
    "dra too early": (
        {"kubeVersion": "1.31", "gpu": {"mode": "dra"}},
        "from Kubernetes 1.32 on, found 1.31. Set gpu.mode to plugin",
    ),
    "signature of a folder": (
        merged(PVC, COSIGN),
        "signatures are of images and artifacts, found model.source.type pvc",
    ),
    "target twice": ({"targets": [{"name": "a"}, {"name": "a"}]}, 'expected each name once, found "a" twice'),
    "unknown image": (
        {"targets": [{"name": "a", "image": "igpu"}]},
        'target a has image "igpu", and imageVariants has none',
    ),
    "image without version": ({"image": {"tag": ""}}, "image: expected a tag or a digest, found none"),
    "engines without capability": (
        merged(PVC, BUILD, {"targets": [{"name": "a"}]}),
        "Set the compute capability to build for",
    ),
    "engines on no GPU": (
        merged(PVC, BUILD, {"gpu": {"mode": "none"}}),
        "engines are built on a GPU, found gpu.mode none",
    ),
    "Job into a node's folder": (
        merged(PVC, BUILD, {"engine": {"cache": {"type": "hostPath", "path": "/e"}}}),
        "Set engine.strategy to onNode",
    ),
    "Argo with a DaemonSet": (
        merged(AB, DAEMON, driver("argo")),
        "argo knows no DaemonSets. Set it to flagger or none",
    ),
    "Argo with two targets": (
        merged(AB, driver("argo"), {"targets": [{"name": "a"}, {"name": "b"}]}),
        "Install the chart once for each target",
    ),
    "Argo with one pod": (merged(AB, driver("argo")), "of 1 pod it can share nothing. Set workload.replicas"),
    "Argo with a candidate": (
        merged(AB, CANDIDATE, driver("argo")),
        "driver argo makes the candidate itself",
    ),
    "Argo without verdicts": (driver("argo"), "argo asks the verdict service. Set ab.enabled to true"),
    "Argo's plugin without route": (
        merged(AB, driver("argo", argo={"gatewayPlugin": True})),
        "Set route.enabled to true",
    ),
    "Flagger with gRPC": (
        merged(AB, FLAGGER, ROUTE),
        "Flagger knows no GRPCRoute. Set route.kinds to [HTTPRoute]",
    ),
    "Flagger without token": (merged(AB, driver("flagger")), "Flagger knows no Secrets: set it here"),
    "gateway without candidate": (
        merged(ROUTE, driver("gateway")),
        "Set route.enabled and variants.candidate.enabled",
    ),
    "weight without gateway": (merged(ROUTE, {"route": {"candidateWeight": 5}}), "weights are the driver's"),
    "KServe with routes": (merged(ROUTE, driver("kserve")), "KServe makes its own routes"),
    "KServe and autoscaling": (
        merged(driver("kserve"), {"autoscaling": {"enabled": True}}),
        "KServe scales by itself",
    ),
    "autoscaled DaemonSet": (merged(DAEMON, {"autoscaling": {"enabled": True}}), "one pod on each node"),
    "KEDA without Prometheus": (
        {"autoscaling": {"enabled": True, "engine": "keda"}},
        "KEDA asks Prometheus itself",
    ),
    "more at least than at most": (
        {"autoscaling": {"enabled": True, "minReplicas": 9}},
        "at most maxReplicas 4, found 9",
    ),
    "route to nowhere": ({"route": {"enabled": True}}, "a route needs a gateway"),
    "explicit and open": (
        {"model": {"control": "explicit"}, "server": {"restrictedApi": {"enabled": False}}},
        "whoever reaches the API can run code",
    ),
    "verdict without image": (merged(AB, {"toolsImage": {"repository": ""}}), "Name the image with Jettison"),
    "verdict without token": (
        merged(AB, {"ab": {"token": {"secretName": ""}}}),
        "Make a Secret with a token",
    ),
    "requests as units": (
        merged(AB, {"ab": {"unitKey": "request"}}),
        "expected what is independent of the next one",
    ),
    "signed metrics": (merged(AB, {"ab": {"signing": {"secretName": "key"}}}), "metrics bear no signature"),
    "two routers of one name": (
        merged(AB, {"ab": {"router": {"enabled": True}}, "workload": {"replicas": 2}}),
        "two pods with one repository would count",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_values_that_contradict_each_other_are_refused_with_what_to_do(name):
    values, said = CONTRADICTIONS[name]
    assert said in refusal(merged(IMAGE, values))


def test_the_refusal_begins_with_our_words_and_not_with_a_template():
    text = refusal(IMAGE | {"variants": {}})
    assert "variants.baseline.digest" in text


def test_every_message_of_the_checks_is_seen_by_a_test():
    """Counts the places that can fail: a new one needs a row above."""
    from chart_render import CHART

    text = (CHART / "templates" / "_checks.tpl").read_text()
    places: Any = text.count("{{- fail ") + text.count("{{ fail ")
    assert places <= len(CONTRADICTIONS) + 2  # the two of `need` and `needVersion` stand for several rows
