"""publish, serve, preflight, doctor: what they print and how they end."""

from __future__ import annotations

import inspect
import signal
import subprocess
from pathlib import Path

import pytest

from jettison.cli import preflight as preflight_verb
from jettison.cli import serve as serve_verb
from jettison.cli.interrupts import Terminated
from jettison.cli.verbs import app
from jettison.core.environments import MARKER_NAME
from jettison.core.errors import ExternalError
from jettison.core.targets import parse_target
from jettison.engines.tensorrt import preflight as asking
from jettison.engines.tensorrt.exchange import CompileAnswer
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.report import RefusedNode


def test_publish_gives_growing_versions_and_absolute_paths(jettison, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    arguments = ("publish", "model.onnx", "--repository", "models", "--name", "small", "--json")
    found = [jettison(*arguments).document for _ in range(3)]
    assert [entry["version"] for entry in found] == [1, 2, 3]
    assert [entry["retired"] for entry in found] == [[], [], [1]]
    assert all(
        set(entry) == {"model", "version", "path", "retired", "proven", "proven_by", "notes"}
        for entry in found
    )
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
    assert answer.document["notes"] == []
    assert published.read_bytes() == (workspace / "out" / "cpu" / "int8" / "model.onnx").read_bytes()


def test_publish_of_a_run_that_chose_its_baseline_says_so(jettison, recipe, workspace):
    recipe.write_text(recipe.read_text().replace("tolerance: 0.1", "tolerance: 0"))
    jettison("run", recipe, "-o", workspace / "out")
    arguments = ("publish", workspace / "out", "--repository", workspace / "other", "--name", "best")
    words = "the run chose the baseline, the float model"
    assert words in jettison(*arguments, "--json").document["notes"][0]
    assert f"note: {words}" in jettison(*arguments).out


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


@pytest.mark.parametrize("name", ["nope", "model.onnx"])
def test_serve_by_what_is_no_program(jettison, workspace, monkeypatch, name):
    monkeypatch.setattr(serve_verb, "TritonServer", lambda *_, **__: pytest.fail("it was started"))
    answer = jettison("serve", workspace, "--server", workspace / name, "--json")
    assert answer.code == 2
    assert answer.document["error"]["what"] == f"tritonserver {workspace / name}"
    assert "Correct the path, or leave it out" in answer.err


@pytest.mark.parametrize(
    ("first", "second"),
    [("--http-port", "--grpc-port"), ("--http-port", "--metrics-port"), ("--grpc-port", "--metrics-port")],
)
def test_serve_refuses_two_services_on_one_port(jettison, workspace, monkeypatch, first, second):
    monkeypatch.setattr(serve_verb, "local_installation", lambda *_, **__: pytest.fail("one started"))
    answer = jettison("serve", workspace, first, 9000, second, 9000)
    assert answer.code == 2
    assert f"{first} and {second}: expected two different ports, found 9000 for both" in answer.err


@pytest.fixture
def served(monkeypatch, tmp_path):
    """`serve` over a server that does nothing; how it starts, ends and stops is the test's."""

    class Server:
        http_url = grpc_url = metrics_url = "127.0.0.1:1"
        pid, log_path = 1, tmp_path / "log"

        def __init__(self, *_, options, **__):
            self.options = options

        def __enter__(self):
            self.start()
            return self

        def __exit__(self, *_):
            self.stop()

        def start(self):
            pass

        def wait(self):
            return 0

        def stop(self):
            pass

    monkeypatch.setattr(serve_verb, "TritonServer", Server)
    monkeypatch.setattr(serve_verb, "local_installation", lambda *_, **__: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield Server
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_serve_of_an_empty_repository_says_so(jettison, tmp_path, served):
    (tmp_path / "models").mkdir()
    assert f"note: {tmp_path / 'models'} holds no model" in jettison("serve", tmp_path / "models").err


@pytest.mark.parametrize(("status", "code"), [(0, 0), (1, 4)])
def test_serve_ends_as_the_server_ends(jettison, workspace, served, monkeypatch, status, code):
    monkeypatch.setattr(served, "wait", lambda _: status)
    answer = jettison("serve", workspace, "--json")
    assert answer.code == code
    assert answer.document["pid"] == 1
    assert f"ended with status {status}" in answer.err


def test_serve_takes_any_free_port_for_several_services(jettison, workspace, served, monkeypatch):
    seen = []
    monkeypatch.setattr(served, "start", lambda server: seen.append(server.options))
    answer = jettison("serve", workspace, "--http-port", 0, "--grpc-port", 0, "--metrics-port", 0)
    assert answer.code == 0
    assert (seen[0].http_port, seen[0].grpc_port, seen[0].metrics_port) == (None, None, None)


def raising(error):
    def do(*_):
        raise error

    return do


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
        (ExternalError("tritonserver", detail="it is gone", fix="Look"), 4),
        (RuntimeError("a bug"), 70),
    ],
)
def test_serve_prints_no_second_document(jettison, workspace, served, monkeypatch, error, code):
    for method in ("wait", "stop"):
        with monkeypatch.context() as patched:
            patched.setattr(served, method, raising(error))
            answer = jettison("serve", workspace, "--json")
        assert answer.code == code
        assert answer.document["pid"] == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_serve_stops_its_server_when_a_supervisor_asks_or_the_terminal_is_closed(
    jettison, workspace, served, monkeypatch, number, code
):
    stopped = []
    monkeypatch.setattr(served, "wait", lambda _: signal.raise_signal(number))
    monkeypatch.setattr(served, "stop", lambda _: stopped.append("it"))
    answer = jettison("serve", workspace, "--json")
    assert answer.code == code
    assert stopped == ["it"]
    assert answer.document["pid"] == 1


def test_serve_under_nohup_outlives_its_terminal(jettison, workspace, served, monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(served, "wait", lambda _: signal.raise_signal(signal.SIGHUP) or 0)
    assert jettison("serve", workspace, "--json").code == 0


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143), (Terminated(signal.SIGHUP), 129)]
)
def test_serve_that_is_stopped_before_it_is_ready_prints_one(
    jettison, workspace, served, monkeypatch, error, code
):
    monkeypatch.setattr(served, "start", raising(error))
    answer = jettison("serve", workspace, "--json")
    assert answer.code == code
    assert answer.document["error"]["what"] == "interrupted"


def test_preflight_without_the_compiler_names_the_extra(jettison, workspace, monkeypatch):
    monkeypatch.setattr(asking, "find_module", lambda: None)
    answer = jettison("preflight", workspace / "model.onnx", "--target", "sm89")
    assert answer.code == 3
    assert "[rtx]'" in answer.err


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


def test_words_of_the_compiler_are_printed_as_they_are(jettison, workspace, monkeypatch):
    words = {
        "node": "{ForeignNode[/layers.0/MatMul]}",
        "operator": "net[int8]",
        "description": "no [/] tactic",
    }
    refused = RefusedNode(code="BUILDER", **words)
    report = preflight(workspace / "model.onnx", parse_target("sm89"))
    told = report.model_copy(update={"outcome": "refused", "compiles": False, "refusals": (refused,)})
    monkeypatch.setattr(preflight_verb, "ask", lambda *_, **__: told)
    answer = jettison("preflight", workspace / "model.onnx")
    assert answer.code == 1
    assert all(word in answer.out for word in words.values())


def test_preflight_with_a_compiler_that_does_not_load_says_why(jettison, workspace, monkeypatch):
    def child(request, **_):
        request.answer.write_text(CompileAnswer(built=False, missing="libcuda.so.1").model_dump_json())
        return subprocess.CompletedProcess([], 0, stderr="")

    monkeypatch.setattr(asking, "find_module", lambda: "tensorrt_rtx")
    monkeypatch.setattr(asking, "_run_child", child)
    answer = jettison("preflight", workspace / "model.onnx", "--json")
    assert answer.code == 3
    assert answer.document["error"] == {
        "what": "preflight",
        "detail": "tensorrt_rtx is installed but does not load: libcuda.so.1",
        "fix": "Bring what it names, or install the compiler again",
    }


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


def test_help_gives_every_verb_one_line(jettison, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = jettison("--help").out.splitlines()
    for command in app.registered_commands:
        name, first = command.callback.__name__, inspect.getdoc(command.callback).splitlines()[0]
        assert any(line.strip("│ ").startswith(name) and first in line for line in lines), name


def test_a_call_without_a_verb_shows_the_help_and_fails(jettison):
    answer = jettison()
    assert answer.code == 2
    assert "compress" in answer.out


@pytest.mark.parametrize("verb", ["compress", "evaluate"])
def test_help_tells_the_unit_of_the_tolerance(jettison, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "300")
    words = jettison(verb, "--help").out
    assert "in the metric's unit: 0.01 is one point of top1" in words
    assert "With 0 a variant must be proven better" in words


def test_doctor_names_no_package_that_is_on_no_index(jettison):
    fixes = [entry["fix"] for entry in jettison("doctor", "--json").document["abilities"]]
    assert not [fix for fix in fixes if "jettison[" in fix]


def test_version(jettison):
    assert jettison("--version").out.startswith("jettison 0.")
