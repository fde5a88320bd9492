"""publish, serve, preflight, doctor: what they print and how they end."""

from __future__ import annotations

from pathlib import Path

import pytest

from jettison.cli import preflight as preflight_verb
from jettison.cli import serve as serve_verb
from jettison.cli.main import app
from jettison.core.targets import parse_target
from jettison.engines.tensorrt.preflight import preflight
from jettison.triton.runtime import MARKER_NAME


def test_publish_gives_growing_versions_and_absolute_paths(jettison, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    arguments = ("publish", "model.onnx", "--repository", "models", "--name", "small", "--json")
    found = [jettison(*arguments).document for _ in range(3)]
    assert [entry["version"] for entry in found] == [1, 2, 3]
    assert all(set(entry) == {"model", "version", "path"} for entry in found)
    assert Path(found[0]["path"]).is_absolute()
    assert sorted(path.name for path in (workspace / "models" / "small").iterdir()) == [
        "2",
        "3",
        "config.pbtxt",
    ]


def test_publish_takes_the_chosen_variant_of_a_run(jettison, recipe, workspace):
    jettison("run", recipe, "-o", workspace / "out")
    answer = jettison(
        "publish", workspace / "out", "--repository", workspace / "other", "--name", "best", "--json"
    )
    published = Path(answer.document["path"]) / "model.onnx"
    assert published.read_bytes() == (workspace / "out" / "cpu" / "int8" / "model.onnx").read_bytes()


def test_publish_of_a_folder_without_a_report(jettison, workspace):
    answer = jettison("publish", workspace, "--repository", workspace / "models", "--name", "small")
    assert answer.code == 2
    assert "expected a finished run with report.json" in answer.err


def test_serve_of_nothing(jettison, tmp_path):
    answer = jettison("serve", tmp_path / "none")
    assert answer.code == 2
    assert "there is no such folder" in answer.err


@pytest.mark.parametrize("option", [("--deadline", "0"), ("--http-port", "70000")])
def test_serve_with_an_impossible_option(jettison, workspace, option):
    answer = jettison("serve", workspace, *option)
    assert answer.code == 2
    assert option[0] in answer.err


@pytest.mark.parametrize(("status", "code"), [(0, 0), (1, 4)])
def test_serve_ends_as_the_server_ends(jettison, workspace, tmp_path, monkeypatch, status, code):
    class Server:
        http_url = grpc_url = metrics_url = "127.0.0.1:1"
        pid, log_path = 1, tmp_path / "log"

        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait(self):
            return status

    monkeypatch.setattr(serve_verb, "TritonServer", Server)
    monkeypatch.setattr(serve_verb, "find_server", lambda *_, **__: None)
    monkeypatch.setattr(serve_verb.signal, "signal", lambda *_: None)
    answer = jettison("serve", workspace, "--json")
    assert answer.code == code
    assert answer.document["pid"] == 1
    assert f"ended with status {status}" in answer.err


def test_preflight_without_the_compiler_names_the_extra(jettison, workspace, monkeypatch):
    report = preflight(workspace / "model.onnx", parse_target("sm89"))
    missing = report.model_copy(update={"outcome": "unavailable"})
    monkeypatch.setattr(preflight_verb, "ask", lambda *_, **__: missing)
    answer = jettison("preflight", workspace / "model.onnx", "--target", "sm89")
    assert answer.code == 3
    assert "pip install 'jettison[rtx]'" in answer.err


@pytest.mark.parametrize(
    ("outcome", "code"), [("compiles", 0), ("refused", 1), ("crashed", 4), ("timeout", 4)]
)
def test_preflight_tells_no_from_no_answer(jettison, workspace, monkeypatch, outcome, code):
    report = preflight(workspace / "model.onnx", parse_target("sm89")).model_copy(update={"outcome": outcome})
    monkeypatch.setattr(preflight_verb, "ask", lambda *_, **__: report)
    assert jettison("preflight", workspace / "model.onnx", "--json").code == code


@pytest.mark.rtx
def test_preflight_answers_in_one_document(jettison, workspace):
    pytest.importorskip("tensorrt_rtx")
    answer = jettison("preflight", workspace / "model.onnx", "--target", "sm89", "--json")
    assert answer.code == 0
    assert answer.document["compiles"] is True
    assert answer.document["int8_mac_share"] == 0.0


def test_preflight_for_the_cpu_is_refused(jettison, workspace):
    answer = jettison("preflight", workspace / "model.onnx", "--target", "cpu")
    assert answer.code == 2


def test_doctor_tells_what_is_here(jettison):
    answer = jettison("doctor", "--json")
    abilities = {entry["name"]: entry["able"] for entry in answer.document["abilities"]}
    assert answer.code == 0
    assert abilities["compress for and run on the CPU"] == "yes"
    assert all(entry["fix"] for entry in answer.document["abilities"] if entry["able"] == "no")


def test_doctor_counts_whole_runtimes_only(jettison, tmp_path, monkeypatch):
    monkeypatch.setenv("JETTISON_CACHE", str(tmp_path))
    monkeypatch.setattr("jettison.cli.doctor.shutil.which", lambda _: None)
    for name in ("runtime-half", "runtime-whole"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.lock").write_text("")

    def found():
        abilities = {entry["name"]: entry for entry in jettison("doctor", "--json").document["abilities"]}
        return abilities["serve with tritonserver"]

    assert found()["able"] == "no"
    (tmp_path / "runtime-whole" / MARKER_NAME).write_text("{}")
    assert found()["detail"] == f"runtime environment {tmp_path / 'runtime-whole'}"


def test_doctor_prints_a_table(jettison):
    assert "run on an NVIDIA GPU" in jettison("doctor").out


@pytest.mark.parametrize("verb", [command.callback.__name__ for command in app.registered_commands])
def test_every_verb_has_help_with_an_example(jettison, verb):
    answer = jettison(verb, "--help")
    assert answer.code == 0
    assert f"jettison {verb}" in answer.out
    assert "Example" in answer.out


def test_version(jettison):
    assert jettison("--version").out.startswith("jettison 0.")
