"""The images of deploy/docker, built for real on Debian, and what runs in them."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest
from images import BASE, ROOT, Images, can_build

from jettison.triton.pbtxt import parse
from jettison.triton.router import RouterOptions, publish_router, router_config

pytestmark = [
    pytest.mark.container,
    pytest.mark.slow,
    pytest.mark.skipif(
        not can_build(), reason="needs JETTISON_IMAGES=1, root, and Debian's buildah and debootstrap"
    ),
]
ASK = """
import sys, time, urllib.request
for _ in range(120):
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=5).status)
        break
    except OSError:
        time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    folder = tmp_path_factory.mktemp("images")
    folder.chmod(0o755)
    made = Images(folder)
    made.make_base()
    return made


@pytest.fixture(scope="module")
def verdict(images: Images) -> str:
    images.build("deploy/docker/Dockerfile.verdict", "verdict", base=BASE)
    return "verdict"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def served(command: str, url: str) -> str:
    """A shell script: starts a server, asks until it answers, stops the server and tells its end."""
    return f"{command} & server=$!; python3 -c '{ASK}' {url}; kill $server; wait $server; echo ended $?"


def test_the_verdict_image_starts_answers_and_ends(images, verdict, tmp_path):
    url = f"http://127.0.0.1:{free_port()}"
    command = f"jettison ab serve --state /tmp/state --experiment /data --port {url.rpartition(':')[2]}"
    tmp_path.chmod(0o755)
    done = images.run(verdict, "sh", "-c", served(command, f"{url}/readyz"), mounts={tmp_path: "/data"})
    assert done.stdout.split()[:2] == ["200", "ended"], done.stderr


def test_the_verdict_image_says_what_it_is_not_and_changes_nothing_of_itself(images, verdict):
    done = images.run(verdict, "sh", "-c", "id -u; jettison compress; touch /opt/jettison/x")
    assert done.stdout.split() == ["1000"]
    assert "expected `ab serve`, found `compress`. Use the builder image" in done.stderr
    assert "Permission denied" in done.stderr


def test_the_verdict_image_lists_what_is_in_it(images, verdict):
    document = json.loads(images.run(verdict, "cat", "/opt/jettison/sbom.cdx.json").stdout)
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "jettison"
    found = {part["name"].lower() for part in document["components"]}
    assert {"starlette", "uvicorn", "pydantic"} <= found
    assert not found & {"pip", "numpy", "onnx"}


def test_the_server_image_s_backends_load_in_tritonserver(images, tmp_path):
    """Both: the sample is served by ours of the name onnxruntime, and a router stands before it."""
    images.build("tests/deploy/Containerfile.triton", "triton", base=BASE)
    images.build(
        "deploy/docker/Dockerfile.server", "server", base="localhost/triton", target="python-onnxruntime"
    )
    url = f"http://127.0.0.1:{free_port()}"
    ports = f"--http-port={url.rpartition(':')[2]} --grpc-port={free_port()} --metrics-port={free_port()}"
    addresses = " ".join(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics"))
    command = f"tritonserver --model-repository=/models --disable-auto-complete-config {ports} {addresses}"
    done = images.run(
        "server", "sh", "-c", served(command, f"{url}/v2/health/ready"), mounts=repositories(tmp_path)
    )
    assert done.stdout.split()[:2] == ["200", "ended"], done.stderr[-3000:]
    assert "successfully loaded 'fashion'" in done.stderr


def test_the_builder_image_runs_jettison(images):
    """On Debian, where the real base is the Triton image that will serve."""
    images.build("deploy/docker/Dockerfile.builder", "builder", base=BASE)
    done = images.run("builder", "jettison", "check", "/nowhere", "--json")
    assert done.returncode != 0
    assert "/nowhere" in done.stdout + done.stderr
    document = json.loads(images.run("builder", "cat", "/opt/jettison/sbom.cdx.json").stdout)
    found = {part["name"].lower() for part in document["components"]}
    assert {"onnx", "onnxruntime", "numpy", "tritonclient"} <= found


def repositories(folder: Path) -> dict[Path, str]:
    """The sample, with a router before its two models."""
    models = folder / "models"
    shutil.copytree(ROOT / "model_repository", models)
    baseline, candidate = (
        parse((models / name / "config.pbtxt").read_text()) for name in ("fashion-fp32", "fashion-int8")
    )
    options = RouterOptions(
        state_path=Path("/tmp/state.json"), counter_folder=Path("/tmp/counters"), node="n"
    )
    config = router_config("fashion", baseline, candidate, options=options)
    publish_router(config, models, created="2026-01-01T00:00:00+00:00")
    folder.chmod(0o755)
    return {models: "/models"}
