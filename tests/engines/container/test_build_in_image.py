"""Builds in a container, against a service that speaks Docker's protocol: nothing is left behind, ever."""

import json
from pathlib import Path
from typing import Any

import pytest
from docker_api import STDERR, STDOUT, TAG, Frames, docker_api
from typer.testing import CliRunner

from engine_records import engine
from jettison.cli.verbs import app
from jettison.core.engine import EngineRecord
from jettison.core.errors import ExternalError, InputError, MissingError, ModelError
from jettison.core.progress import Progress
from jettison.core.targets import parse_target
from jettison.engines.tensorrt.build_exchange import BuildStep
from jettison.engines.tensorrt.build_in_image import ImageOrder, build_in_image
from jettison.engines.tensorrt.build_report import BuildReport

pytest.importorskip("docker", reason="the extra `docker` is not installed")
TARGET = parse_target("sm89")


def builds(asked: dict[str, Any]) -> tuple[Frames, int]:
    """What `jettison build` does in the container: progress, a plan in the mounted folder, its report."""
    mounts = {mount["Target"]: Path(mount["Source"]) for mount in asked["HostConfig"]["Mounts"]}
    assert (mounts["/model"] / asked["Cmd"][1].rpartition("/")[2]).is_file()
    place = mounts["/engines"] / "sm89"
    place.mkdir()
    (place / "model.plan").write_bytes(b"plan")
    made = engine(89)
    (place / "engine.json").write_text(made.model_dump_json())
    report = BuildReport(target="sm89", outcome="built", path=Path("/engines/sm89"), engine=made)
    step = BuildStep(phase="Tactics é", done=1, total=3).model_dump_json().encode() + b"\n"
    document = report.model_dump_json().encode()
    middle = step.index("é".encode()) + 1  # inside of the letter
    return [
        (STDERR, step[:middle]),
        (STDOUT, document[:40]),
        (STDERR, step[middle:] + b"a warning\n"),
        (STDOUT, document[40:]),
    ], 0


def fails(code: int, stdout: str = "", stderr: str = "") -> Any:
    return lambda _: ([(STDOUT, stdout.encode()), (STDERR, stderr.encode())], code)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "net.onnx"
    path.parent.mkdir()
    path.write_bytes(b"onnx")
    return path


def test_a_build_in_an_image_leaves_the_engine_here_and_no_container(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []

    def reporter(title: str) -> Progress:
        return lambda done, total: told.append((title, done, total))

    order = ImageOrder(image=TAG, arguments=("--level", "5"), user="7:8", report=reporter)
    with docker_api(builds) as api:
        monkeypatch.setenv("DOCKER_HOST", api.url)
        report = build_in_image(model, TARGET, tmp_path / "out", order=order)
        assert api.containers == {}
    (asked,) = api.created
    assert asked["Entrypoint"] == ["jettison"]
    assert asked["Cmd"] == [
        "build", "/model/net.onnx", "--target", "sm89", "-o", "/engines", "--json", "--level", "5",
    ]  # fmt: skip
    assert asked["User"] == "7:8"
    assert "JETTISON_PROGRESS=lines" in asked["Env"]
    assert asked["HostConfig"]["DeviceRequests"][0]["Capabilities"] == [["gpu"]]
    read_only = {mount["Target"]: mount["ReadOnly"] for mount in asked["HostConfig"]["Mounts"]}
    assert read_only == {"/model": True, "/engines": False}
    assert told == [("Tactics é", 1, 3)]
    place = tmp_path / "out/sm89"
    assert report.path == place
    image = f"{TAG}@sha256:{'2' * 64}"
    assert EngineRecord.model_validate_json((place / "engine.json").read_bytes()).image == image
    assert report.notes == (f"{TAG} asks of the driver: cuda>=12.9",)
    attach, start = (api.asked.index(f"POST /containers/ID/{step}") for step in ("attach", "start"))
    assert attach < start  # or the first words would be lost


def test_an_image_that_serves_another_tensorrt_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = {
        "Id": "sha256:3",
        "RepoTags": [TAG],
        "Config": {"Labels": {"com.nvidia.tensorrt.version": "11.1.0"}},
    }
    with docker_api(builds, image=labelled) as api:
        monkeypatch.setenv("DOCKER_HOST", api.url)
        report = build_in_image(model, TARGET, tmp_path / "out", order=ImageOrder(image=TAG))
    assert report.notes == (
        f"built by TensorRT 10.13.3.9, and {TAG} names 11.1.0: its Python module is not the library that "
        "serves",
    )
    assert report.engine is not None
    assert report.engine.image == f"{TAG}@sha256:3"


@pytest.mark.parametrize(
    ("program", "kind", "text"),
    [
        (
            fails(
                3, json.dumps({"error": {"what": "build for sm89", "detail": "no GPU", "fix": "Go there"}})
            ),
            MissingError,
            f"build for sm89, in {TAG}: no GPU. Go there",
        ),
        (
            fails(2, json.dumps({"error": {"what": "input 'x'", "detail": "no range", "fix": "Give it"}})),
            InputError,
            f"input 'x', in {TAG}: no range. Give it",
        ),
        (
            fails(127, "", "first\nsh: jettison: not found"),
            ExternalError,
            "found exit code 127 and on stderr 'sh: jettison: not found'. Use an image that holds Jettison",
        ),
    ],
)
def test_what_went_wrong_in_the_container_is_told_in_its_words(
    program: Any,
    kind: type[Exception],
    text: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with docker_api(program) as api:
        monkeypatch.setenv("DOCKER_HOST", api.url)
        with pytest.raises(kind) as error:
            build_in_image(model, TARGET, tmp_path / "out", order=ImageOrder(image=TAG))
        assert api.containers == {}
    assert text in str(error.value)


def test_a_service_without_gpus_is_told_and_the_container_is_removed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with docker_api(builds, refuses_start=True) as api:
        monkeypatch.setenv("DOCKER_HOST", api.url)
        with pytest.raises(
            ExternalError, match=r"could not select device driver .* NVIDIA's container toolkit"
        ):
            build_in_image(model, TARGET, tmp_path / "out", order=ImageOrder(image=TAG))
        assert api.containers == {}


def test_an_interrupt_removes_the_container(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reporter(title: str) -> Progress:
        raise KeyboardInterrupt

    with docker_api(builds) as api:
        monkeypatch.setenv("DOCKER_HOST", api.url)
        with pytest.raises(KeyboardInterrupt):
            build_in_image(model, TARGET, tmp_path / "out", order=ImageOrder(image=TAG, report=reporter))
        assert api.containers == {}
        assert api.asked[-1] == "DELETE /containers/ID"


def test_an_image_that_is_not_there_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with docker_api(builds) as api:
        monkeypatch.setenv("DOCKER_HOST", api.url)
        with pytest.raises(
            MissingError, match=r"image none:1: there is no such image on this machine\. Pull"
        ):
            build_in_image(model, TARGET, tmp_path / "out", order=ImageOrder(image="none:1"))
        assert api.created == []


def test_without_a_service_what_to_start_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(MissingError, match=r"no Docker API answers: .* Start Docker or Podman's service"):
        build_in_image(model, TARGET, tmp_path / "out", order=ImageOrder(image=TAG))
    with pytest.raises(ModelError, match="there is no such file"):
        build_in_image(tmp_path / "none.onnx", TARGET, tmp_path / "out", order=ImageOrder(image=TAG))


def test_the_verb_hands_its_options_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [
        "build", str(model), "--target", "sm89", "-o", str(tmp_path / "out"), "--image", TAG, "--json",
        "--shapes", "x=1x8,4x8,8x8", "--workspace", "64", "--compatibility", "ampere-plus",
        "--version-compatible",
    ]  # fmt: skip
    with docker_api(builds) as api:
        monkeypatch.setenv("DOCKER_HOST", api.url)
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert BuildReport.model_validate_json(done.stdout).path == tmp_path / "out/sm89"
    assert api.created[0]["Cmd"][7:] == [
        "--shapes", "x=1x8,4x8,8x8", "--level", "3", "--compatibility", "ampere-plus", "--timeout", "7200",
        "--workspace", "64", "--version-compatible",
    ]  # fmt: skip
