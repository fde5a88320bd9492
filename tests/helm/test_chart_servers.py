"""How a server is started, found, drained and fenced in."""

from __future__ import annotations

import pytest
from chart_cases import AB, ARGO, CANDIDATE, DAEMON, FLEET, HOST, IMAGE, OCI, PVC, S3, A
from chart_render import container, merged, one, render, render_text, server

LABELS = (
    "feature.node.kubernetes.io/pci-10de.present",
    "feature.node.kubernetes.io/cpu-model.vendor_id",
    "nvidia.com/gpu.present",
)


def spec_of(*layers):
    return server(render(merged(IMAGE, *layers)))


@pytest.mark.parametrize(("stop", "leave"), [(15, 45), (5, 120)])
def test_the_grace_period_is_the_sum_of_what_must_happen(stop, leave):
    spec = spec_of({"drain": {"preStopSeconds": stop, "exitTimeoutSeconds": leave}})
    main = container(spec, "server")
    assert spec["terminationGracePeriodSeconds"] == stop + leave + 10
    assert main["lifecycle"]["preStop"] == {"sleep": {"seconds": stop}}
    assert f"--exit-timeout-secs={leave}" in main["args"]


@pytest.mark.parametrize(("version", "action"), [("1.29", "exec"), ("1.30", "sleep")])
def test_kubernetes_sleeps_itself_as_soon_as_it_can(version, action):
    main = container(spec_of({"kubeVersion": version}), "server")
    assert list(main["lifecycle"]["preStop"]) == [action]


@pytest.mark.parametrize(("version", "way"), [("1.34", "emptyDir"), ("1.35", "image")])
def test_models_are_an_image_volume_as_soon_as_those_are_on(version, way):
    spec = spec_of({"kubeVersion": version})
    (models,) = [volume for volume in spec["volumes"] if volume["name"] == "models"]
    assert way in models
    assert bool(spec.get("initContainers")) == (way == "emptyDir")


def test_readiness_is_the_critical_model_s_and_startup_has_the_whole_budget():
    main = container(
        spec_of({"model": {"critical": "fashion"}, "probes": {"startup": {"budgetSeconds": 905}}}), "server"
    )
    assert main["readinessProbe"]["httpGet"]["path"] == "/v2/models/fashion/ready"
    assert main["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert main["startupProbe"]["failureThreshold"] * main["startupProbe"]["periodSeconds"] == 910


@pytest.mark.parametrize(
    "layers", [(), (PVC,), (HOST,), (S3,), (OCI,)], ids=["image", "pvc", "hostPath", "s3", "oci"]
)
def test_the_server_cannot_write_its_models(layers):
    mounts = {mount["name"]: mount for mount in container(spec_of(*layers), "server")["volumeMounts"]}
    assert mounts["models"]["readOnly"] is True
    assert [name for name, mount in mounts.items() if not mount.get("readOnly")] == ["tmp", "shm"]


def test_a_digest_wins_over_a_tag():
    assert (
        container(spec_of({"image": {"digest": A}}), "server")["image"] == f"nvcr.io/nvidia/tritonserver@{A}"
    )


def test_no_key_of_the_api_stands_in_the_objects():
    main = container(spec_of(), "server")
    (key,) = main["env"]
    assert key["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert [
        arg.endswith("admin-key=$(JETTISON_ADMIN_KEY)") for arg in main["args"] if "restricted" in arg
    ] == [True] * 2


def test_each_way_to_know_a_gpu_is_an_alternative_that_has_all_that_the_target_asks():
    documents = render(merged(IMAGE, FLEET))
    spec = one(documents, "Deployment", "edge-jettison-l4")["spec"]["template"]["spec"]
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert [term["matchExpressions"][0]["key"] for term in terms] == list(LABELS)
    asked = [(each["key"], each["operator"], each["values"]) for each in terms[2]["matchExpressions"][1:]]
    assert asked == [
        ("kubernetes.io/arch", "In", ["amd64"]),
        ("nvidia.com/gpu.compute.major", "In", ["8"]),
        ("nvidia.com/gpu.compute.minor", "In", ["9"]),
        ("nvidia.com/gpu.memory", "Gt", ["19999"]),
    ]


def test_each_target_has_its_own_workload_image_and_size():
    documents = render(merged(IMAGE, FLEET))
    found = {
        document["metadata"]["name"]: (
            document["spec"]["replicas"],
            document["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2],
        )
        for document in documents
        if document["kind"] == "Deployment"
    }
    assert found == {"edge-jettison-orin": (1, "26.02-py3-igpu"), "edge-jettison-l4": (2, "26.07-py3")}


def test_a_candidate_has_its_own_pods_service_and_models():
    documents = render(merged(IMAGE, CANDIDATE, {"kubeVersion": "1.36"}))
    pod = one(documents, "Deployment", "edge-jettison-default-candidate")["spec"]["template"]
    (models,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "models"]
    assert models["image"]["reference"].endswith("b" * 64)
    selector = one(documents, "Service", "edge-jettison-candidate")["spec"]["selector"]
    assert selector.items() <= pod["metadata"]["labels"].items()
    baseline = one(documents, "Deployment", "edge-jettison-default")["spec"]["template"]["metadata"]["labels"]
    assert not selector.items() <= baseline.items()


def test_an_update_never_needs_a_second_gpu():
    for layers in ((), (DAEMON,)):
        document = next(
            doc for doc in render(merged(IMAGE, *layers)) if doc["kind"] in ("Deployment", "DaemonSet")
        )
        strategy = document["spec"].get("strategy") or document["spec"]["updateStrategy"]
        assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


@pytest.mark.parametrize(
    ("layers", "goes_out"), [((), False), ((PVC,), False), ((S3,), True), ((OCI,), True)]
)
def test_nothing_goes_out_unless_models_are_fetched(layers, goes_out):
    policy = one(render(merged(IMAGE, {"kubeVersion": "1.36"}, *layers)), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert bool(policy["egress"]) == goes_out


def test_only_prometheus_and_the_verdict_service_read_metrics():
    policy = one(render(merged(IMAGE, AB)), "NetworkPolicy", "edge-jettison")["spec"]
    (rule,) = [rule for rule in policy["ingress"] if rule["ports"][0]["port"] == 8002]
    assert rule["from"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "monitoring"
    }
    assert rule["from"][1]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "verdict"
    assert len(rule["from"]) == 2


def test_the_notes_have_the_names_of_this_release():
    notes = render_text(merged(IMAGE, AB, FLEET))["NOTES.txt"]
    assert "kubectl -n models rollout status deployment/edge-jettison-l4 --timeout=900s" in notes
    assert "helm test edge -n models --logs" in notes
    assert "127.0.0.1:8080/v1/experiments/experiment/verdict" in notes
    assert "has no digest" in notes
    assert "has no digest" not in render_text(merged(IMAGE, {"image": {"digest": A}}))["NOTES.txt"]


def test_names_that_yaml_takes_for_something_else_stay_names():
    words = {"targets": [{"name": "no"}], "ab": {"name": "123", "unitKey": "true"}}
    documents = render(merged(IMAGE, AB, words))
    pod = one(documents, "Deployment", "edge-jettison-no")["spec"]["template"]
    assert pod["metadata"]["labels"]["jettison.dev/target"] == "no"
    experiment = one(documents, "ConfigMap", "edge-jettison-verdict")["data"]["experiment.yaml"]
    assert 'name: "123"' in experiment
    assert 'unit: "true"' in experiment


def test_metrics_of_each_pod_are_read_once():
    documents = render(merged(IMAGE, CANDIDATE, {"monitoring": {"serviceMonitor": {"enabled": True}}}))
    wanted = one(documents, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    services = [document for document in documents if document["kind"] == "Service"]
    (found,) = [service for service in services if wanted <= service["metadata"]["labels"].items()]
    assert found["spec"]["clusterIP"] == "None"
    for name in ("edge-jettison-default", "edge-jettison-default-candidate"):
        labels = one(documents, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
        assert found["spec"]["selector"].items() <= labels.items()


def test_the_notes_watch_what_the_driver_runs():
    argo = render_text(merged(IMAGE, AB, ARGO))["NOTES.txt"]
    assert "kubectl argo rollouts -n models status edge-jettison-default" in argo
    assert "rollout status deployment" not in argo
    daemon = render_text(merged(IMAGE, DAEMON))["NOTES.txt"]
    assert "rollout status daemonset/edge-jettison-default" in daemon
